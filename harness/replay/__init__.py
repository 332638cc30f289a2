"""A scan replayed as if it were being measured: a detector and encoders for the desk."""
