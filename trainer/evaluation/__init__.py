"""Whether the result is good: validation, the best state, measures of images, and the verdict."""
