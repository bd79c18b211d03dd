"""More captions for the clips of a build: written by an annotator, filtered, and kept beside the shards.

Shards are never rewritten.  A recipe joins a table of annotations by clip (`data.annotations`).
"""
