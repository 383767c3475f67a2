"""A backbone for contralex: an all-convolutional network."""
