"""From waves to the input of an audio encoder: augmented, cut into segments, turned into spectrograms, and masked."""
