"""Diffusers pipelines as base models, for training without ComfyUI."""
