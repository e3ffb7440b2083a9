"""Training: losses, the pure step, and what a run leaves behind."""
