"""Events of a run, and the functions that are called for them."""
