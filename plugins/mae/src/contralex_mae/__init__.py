"""Masked autoencoding as a look-up: what is hidden is asked for, and the image's own patches are the keys."""
