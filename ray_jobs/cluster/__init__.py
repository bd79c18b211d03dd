"""How work runs on a Ray cluster: joining it, tasks, the ranks of a training, and metrics."""
