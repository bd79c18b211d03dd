"""Measures models on the splits of a build."""
