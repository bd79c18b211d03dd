"""The table of all clips of all datasets, before anything is decided about them."""
