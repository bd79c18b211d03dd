"""Training and use of audio-text retrieval models."""

from training.quiet import hush

hush()
