"""The core's own vocabulary, registered through the same hooks as any plugin's. Imports no torch."""
