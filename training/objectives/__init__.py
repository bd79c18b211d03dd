"""Losses: over the pairs of a global batch, and of single samples."""
