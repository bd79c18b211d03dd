"""One training from its first start to its export: folder, lock, log, loop."""
