"""A life-cycle hook for contralex: it measures how far the queries are spread, and ends a run that collapses."""
