"""Whether a step fits into memory, and what is done where it does not."""
