"""Language models from transformers folders, for training without ComfyUI."""
