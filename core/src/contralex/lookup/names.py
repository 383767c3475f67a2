"""Names that specs and the engine share. No torch."""

MAIN = "main"
"""The look-up that a method's own slots make."""
IMAGE = "image"
"""The output of an encoder that is looked up where nothing else is said."""
