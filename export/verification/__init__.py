"""Compare an artifact with the network that it was made from, in every installed engine."""
