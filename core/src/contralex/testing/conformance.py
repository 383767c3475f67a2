"""The kit as one class of pytest's, with one attribute."""

from __future__ import annotations

from typing import Any, ClassVar

from contralex.errors import ContralexError
from contralex.testing.kit import Case, cases


class Conformance:
    """Derive a class from this one and name the distribution; pytest then runs every case as a test."""

    distribution: ClassVar[str]

    def pytest_generate_tests(self, metafunc: Any) -> None:
        import pytest

        try:
            found = cases(self.distribution)
        except ContralexError as error:
            raise pytest.UsageError(str(error)) from None
        metafunc.parametrize("case", [pytest.param(case, id=case.id) for case in found])

    def test_conformance(self, case: Case, pytestconfig: Any) -> None:
        import pytest

        outcome = case.run()
        if outcome.state == "not applicable":
            pytest.skip(outcome.reason)
        if outcome.state == "expected failure":
            pytest.xfail(outcome.reason)
        if outcome.bad:
            more = f"\n\n{outcome.traceback}" if outcome.traceback and pytestconfig.get_verbosity() > 0 else ""
            said = f"{outcome.id}: {outcome.reason}\n\nWhat is asked: {case.question}{more}"
            pytest.fail(said, pytrace=False)
