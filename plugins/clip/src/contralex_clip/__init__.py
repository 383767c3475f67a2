"""CLIP and SigLIP: an image looks its caption up among all captions of the batch, and a caption its image."""
