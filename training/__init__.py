"""Training and use of audio-text retrieval models."""

from training.run.quiet import silence_libraries

silence_libraries()
