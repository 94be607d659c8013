"""Evaluation of what a run has learned: validation, the best state, measurements of the result, and the verdict."""
