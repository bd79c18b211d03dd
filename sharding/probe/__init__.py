"""Decodes every clip of a build once, in processes that may crash, and keeps what later stages need."""
