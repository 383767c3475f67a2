"""Training on Accelerate: the run, its optimiser, its checkpoints, its processes."""
