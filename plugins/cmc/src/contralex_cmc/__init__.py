"""CMC as a look-up between colour channels."""
