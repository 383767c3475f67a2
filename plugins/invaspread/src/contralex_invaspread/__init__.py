"""InvaSpread: a look-up in the batch that also pushes every wrong entry away."""
