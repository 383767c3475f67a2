"""MoCo v1 and v2 as a look-up in a queue."""
