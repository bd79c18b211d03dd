"""What a model has learned, on one page: its spaces, its distances, its mistakes, and what its attention looks at."""
