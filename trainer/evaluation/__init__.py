"""Evaluation of what a run has learned: validation, the best state, measurements of images, and the verdict."""
