"""From a scan and a network to an object."""
