"""Memory planning: how steps are made to fit, and what happens after an out-of-memory error (OOM)."""
