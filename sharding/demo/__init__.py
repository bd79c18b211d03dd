"""Synthesises the corpus of the demo and of the tests."""
