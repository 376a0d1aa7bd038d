"""Training and evaluation: losses, densities, data, augmentation, the trainer, checkpoints, metrics."""
