"""The parts that all diffusion models share: their inputs, their objective, and their loss."""
