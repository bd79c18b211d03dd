"""Scores of all captions for all clips as folders: written, compared, combined, and submitted to a challenge."""
