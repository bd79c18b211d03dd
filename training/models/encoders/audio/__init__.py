"""Audio encoders, one module for each."""
