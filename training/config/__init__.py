"""Recipes: read from YAML, extended, overridden and checked."""
