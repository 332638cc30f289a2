"""Studies: whole experiments in one call."""
