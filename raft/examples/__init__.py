"""Short programs that a reader can run."""
