"""Which clips, captions, windows and crops each step of a training has; a function of manifest, recipe and seed."""
