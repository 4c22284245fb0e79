"""One node: what a user runs on a real machine. Does not know that it may run in a lab."""
