"""How texts for people are put together."""
