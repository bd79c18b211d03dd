"""Text encoders of the transformers library."""
