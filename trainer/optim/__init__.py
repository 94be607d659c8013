"""How weights are updated: optimizers, learning rate schedules, and the step of both."""
