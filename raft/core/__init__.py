"""The consensus algorithm as a pure state machine: no clock, no randomness, no I/O, no logging."""
