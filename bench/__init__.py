"""Programs that measure Earshot: ``python -m bench.NAME``; the others are parts of these programs."""
