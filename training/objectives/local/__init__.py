"""Losses of single samples, which need no other sample of the batch."""
