"""DINO as a look-up in prototypes."""
