"""The course of a training run, from its plan to its result."""
