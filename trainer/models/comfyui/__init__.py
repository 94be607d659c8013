"""The MODEL, CLIP and VAE of a ComfyUI graph as a base model. The only package that imports ComfyUI."""
