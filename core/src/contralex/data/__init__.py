"""Sources of samples, batches and views. Importing :mod:`contralex.data.base` imports torch."""
