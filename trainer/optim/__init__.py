"""Updates of the trained weights: optimizers, learning rate schedules, and the steps that use them."""
