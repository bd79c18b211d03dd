"""One training step on all ranks: DeepSpeed, gradients, dropout, optimizers and checkpoints."""
