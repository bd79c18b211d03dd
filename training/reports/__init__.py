"""A training run on one page: its curves, figures, examples, settings, data, machines, time and cost."""
