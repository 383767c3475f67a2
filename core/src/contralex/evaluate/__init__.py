"""Judging a representation. Every figure carries its whole protocol."""
