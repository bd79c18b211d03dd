"""Decides what becomes of each clip: pure functions of tables."""
