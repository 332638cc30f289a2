"""Simulate, evaluate, compare and report; and the command line."""
