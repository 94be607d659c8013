"""Several LoRAs as one, another rank, or baked into a checkpoint."""
