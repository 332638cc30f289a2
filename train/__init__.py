"""Train each architecture in the framework that it was written for."""
