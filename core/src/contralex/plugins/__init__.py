"""Plugins: their hooks, how they are found, and what each offers."""

from contralex.plugins import registry  # noqa: F401  fills the table of kinds that specs read
