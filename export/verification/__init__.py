"""Verification: an artifact against the network it was converted from, in every installed engine."""
