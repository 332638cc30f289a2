"""Check of a GPU in one command, and the bundle that takes it to a machine without internet."""
