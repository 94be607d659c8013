"""LoRA Crucible's trainer: everything that reads data, trains and writes files, with or without ComfyUI."""

__version__ = "0.1.0"
