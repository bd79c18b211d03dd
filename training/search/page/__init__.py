"""The page on which an index is searched: what it asks for, the same over HTTP, and its files."""
