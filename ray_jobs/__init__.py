"""Ray entry points and runners: the only package that imports ray."""
