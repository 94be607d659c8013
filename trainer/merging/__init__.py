"""Merge several LoRAs into one, bake them into a checkpoint, or change their rank."""
