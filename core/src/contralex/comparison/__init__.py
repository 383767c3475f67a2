"""Several methods under one budget: planned first, each trained in a process of its own, one table."""
