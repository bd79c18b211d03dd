"""Finds clips that hold the same sound, and proves it on their waveforms."""
