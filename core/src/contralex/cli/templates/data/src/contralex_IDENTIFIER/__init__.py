"""Data for contralex: images that a table lists."""
