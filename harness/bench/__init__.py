"""Speed of artifacts against every other form of the same networks, in turns."""
