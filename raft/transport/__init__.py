"""Adapters for the transport port: in memory, and HTTP."""
