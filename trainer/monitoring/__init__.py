"""Monitoring of a run for problems: NaN and spikes, hard examples, slow steps, and a swinging error."""
