"""SwAV as a look-up in prototypes."""
