"""Language models as ComfyUI loads them: a graph's CLIP that writes texts."""
