"""A method for contralex: two views of a sample should resemble the same other samples."""
