"""InstDisc as a look-up in a memory bank."""
