"""Which layers get an adapter, and of what kind."""
