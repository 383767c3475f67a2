"""SLIP: CLIP, and SimCLR of two more crops, on one image tower."""
