"""Monitoring of a run for problems: NaN and spikes, hard images, slow steps, and a swinging error."""
