"""Finding sounds by text."""

CANDIDATES = 1000  # clips that a head with attention scores exactly for each query
