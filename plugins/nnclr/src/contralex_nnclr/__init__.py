"""NNCLR: what a query should find is a neighbour of its key."""
