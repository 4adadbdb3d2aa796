"""The replicated state in SQLite."""
