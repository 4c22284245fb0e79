"""Pure decisions: facts in, a value out. No I/O, no clock, no state."""
