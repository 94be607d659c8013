"""Merging of several LoRAs into one or into a checkpoint, and changing the rank of a LoRA."""
