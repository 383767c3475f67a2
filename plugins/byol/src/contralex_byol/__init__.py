"""BYOL as a look-up with nothing but the answer in it."""
