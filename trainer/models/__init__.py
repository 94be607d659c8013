"""Base models from ComfyUI and diffusers, behind one interface."""
