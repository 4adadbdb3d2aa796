"""The HTTP API: Flask views over the local state and the agent."""
