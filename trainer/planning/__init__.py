"""Which values the settings on auto take, and why."""
