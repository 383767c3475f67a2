"""The conformance kit: what every plugin for contralex must keep to, checked on what the plugin itself declares.

In a plugin's tests::

    from contralex.testing import Conformance

    class TestConformance(Conformance):
        distribution = "contralex-mine"

or on anything that is installed: ``contralex check contralex-mine``.

What each check asks is in the docstring of its function, in the modules beside this one. A check that must fail is
declared by the plugin, with a reason, in the hook ``contralex_expected_failures``; it fails when it starts passing.
"""

from contralex.testing.conformance import Conformance
from contralex.testing.host_waits import HostWaits
from contralex.testing.kit import Case, Outcome, cases

__all__ = ["Case", "Conformance", "HostWaits", "Outcome", "cases"]
