"""A target generator for contralex: the instance, and the samples that its key resembles."""
