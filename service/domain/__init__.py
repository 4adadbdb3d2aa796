"""Pure values and rules: no clock, no SQL, no Flask."""
