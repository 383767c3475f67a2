"""CPC as a look-up over positions."""
