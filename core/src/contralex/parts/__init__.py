"""The running parts behind the specs of :mod:`contralex.vocabulary`. Importing this package imports torch."""
