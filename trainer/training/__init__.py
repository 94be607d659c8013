"""What happens in a run, from its plan to its result."""
