"""Whether something is going wrong: anomalies in the numbers, hard images, slow steps, a loss that swings."""
