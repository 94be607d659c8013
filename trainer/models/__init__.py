"""What is being trained: base models of ComfyUI and diffusers behind one interface."""
