"""What each command does to the tables."""
