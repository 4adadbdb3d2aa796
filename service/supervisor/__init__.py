"""PID 1 of a node, and the loopback cluster for development."""
