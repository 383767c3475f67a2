"""A negative source for contralex: the batch, and a memory of recent keys across batches."""
