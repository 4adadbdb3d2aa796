"""Shipped for users too: the simulator, its checkers, and the contract suites of the ports."""
