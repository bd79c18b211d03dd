"""Models from encoders and heads, and how they are saved, opened, published and converted."""
