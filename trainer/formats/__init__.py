"""LoRA files: reading, writing, metadata, and the format and layer names that each architecture uses."""
