"""SimCLR as a look-up in the batch."""
