"""How far a network's object may be from the true one."""
