"""Figures, pages and tables about a finished build."""
