"""The one process of a node that takes part in consensus and writes its state."""
