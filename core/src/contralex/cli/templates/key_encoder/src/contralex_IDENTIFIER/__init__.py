"""A key encoder for contralex: a moving average of weights and of BatchNorm's statistics."""
