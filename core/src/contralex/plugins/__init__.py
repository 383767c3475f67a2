"""Plugins: their hooks, how they are found, and what each offers."""

from contralex.plugins import table


def _find_plugins() -> table.Kinds:
    from contralex.plugins.registry import registry

    return registry()


table.fill(_find_plugins)  # which specs read
