"""LoRA files: which form each architecture's file has, the names in it, reading, writing and metadata."""
