"""The conformance kit catches what it says: each plugin in ``wrong/`` breaks one promise, and the kit tells which.

A file there says in its docstring what is wrong, in ``FAILS`` which check must say so, and in ``REASON`` what the
reason must match. ``ONLY``: the cases to run, where several would do. ``CRASH``: that part raises by itself, and no
sentence of the kit's is asked. ``REQUIRES`` and ``RECIPES``: of the distribution.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contralex.__main__ import main
from contralex.plugin import ContralexError
from contralex.plugins.registry import registry
from contralex.testing import Outcome, cases, kit, process_checks
from contralex.testing.check_errors import explain_error
from contralex.testing.trials import Trial, list_trials
from tests.conftest import Site

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
TOGETHER = "two_equal_one"  # starts processes, which takes seconds, so all plugins that it is for share one start
ALL = (*kit.PLUGIN, *kit.HOOKS, *kit.KIND, *kit.VIEWS, *kit.DATA, *kit.TRIAL, *kit.RECIPE)
CHECKS = {check.__name__ for check in ALL}
Install = Callable[..., Path]


@dataclass(frozen=True)
class Module:
    """A plugin of one file, and what its constants say of it."""

    path: Path
    said: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Module:
        said: dict[str, Any] = {"ONLY": "", "CRASH": False, "REQUIRES": "contralex>=0.1,<2", "RECIPES": {}}
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
                try:
                    said[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    continue  # not for us
        said["SENTENCE"] = ast.get_docstring(tree)
        return cls(path, said)

    @property
    def distribution(self) -> str:
        return self.path.stem.replace("_", "-")

    def put(self, install: Install) -> None:
        install(
            self.distribution,
            self.path.read_text("utf-8"),
            requires=self.said["REQUIRES"],
            recipes=self.said["RECIPES"],
        )

    def must_have_failed(self, reasons: list[str]) -> None:
        assert reasons, f"{self.said['FAILS']} passes, and {self.said['SENTENCE']}"
        right = [reason for reason in reasons if re.search(self.said["REASON"], reason)]
        assert right, f"for another reason: {reasons}"
        assert self.said["CRASH"] or not right[0].startswith("it raised")


WRONG = [Module.read(path) for path in sorted((HERE / "wrong").glob("*.py"))]


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_is_failed_by_a_plugin(check: str) -> None:
    assert check in {module.said["FAILS"] for module in WRONG}


@pytest.mark.parametrize("module", WRONG, ids=lambda module: module.path.stem)
def test_a_wrong_plugin_says_what_is_wrong(module: Module) -> None:
    assert module.said["SENTENCE"].endswith(".")
    assert module.said["FAILS"] in CHECKS


@pytest.mark.parametrize(
    "module", [one for one in WRONG if one.said["FAILS"] != TOGETHER], ids=lambda module: module.path.stem
)
def test_the_kit_catches(module: Module, fake_plugin: Install) -> None:
    module.put(fake_plugin)
    prefix = f"{module.said['FAILS']}["
    chosen = [
        case for case in cases(module.distribution) if case.id.startswith(prefix) and module.said["ONLY"] in case.id
    ]
    module.must_have_failed([outcome.reason for outcome in map(kit.Case.run, chosen) if outcome.bad])


# On two processes


@pytest.fixture(scope="module")
def on_two(shared_site: Site) -> dict[str, list[str]]:
    """For each wrong plugin that only two processes show, what the check says of it."""
    modules = [module for module in WRONG if module.said["FAILS"] == TOGETHER]
    for module in modules:
        module.put(shared_site.install)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(process_checks, "PATIENCE", 10.0)  # one of them makes the others wait
        chosen: dict[str, Trial] = {}
        for module in modules:
            trials = list_trials(registry().plugins[module.distribution])
            chosen[module.distribution] = next(trial for trial in trials if module.said["ONLY"] in str(trial))
        process_checks.share_processes(list(chosen.values()))
        return {name: _reasons(trial) for name, trial in chosen.items()}


def _reasons(trial: Trial) -> list[str]:
    try:
        process_checks.two_equal_one(trial)
    except Exception as error:
        return [explain_error(error)]
    return []


@pytest.mark.parametrize(
    "module", [one for one in WRONG if one.said["FAILS"] == TOGETHER], ids=lambda module: module.path.stem
)
def test_the_kit_catches_on_two_processes(module: Module, on_two: dict[str, list[str]]) -> None:
    module.must_have_failed(on_two[module.distribution])


# What is right


def test_a_plugin_that_is_right_has_no_bad_outcome(fake_plugin: Install) -> None:
    Module.read(HERE / "right.py").put(fake_plugin)
    found = cases("right")
    assert {case.id.partition("[")[0] for case in found} == CHECKS - {
        "views_follow_the_seed",
        "views_stack",
        "data_reads",
        "hooks_take_part",
    }
    outcomes = [case.run() for case in found]
    assert [outcome for outcome in outcomes if outcome.bad] == []
    # Where the key encoder's keys have a gradient, one check asks nothing.
    assert {outcome.id.partition("[")[0] for outcome in outcomes if outcome.state != "passed"} == {"no_gradient_leaks"}


def test_what_a_part_changes_outside_is_put_back(fake_plugin: Install) -> None:
    import torch

    Module.read(HERE / "wrong" / "sets_the_default_dtype.py").put(fake_plugin)
    threads = torch.get_num_threads()
    for case in cases("sets-the-default-dtype"):
        if case.id.startswith("finite_loss"):
            case.run()
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (torch.float32, threads)


# Failures that are expected: a data set needs no method to stand in, so its cases are quick

DATA = '''
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl


class Untried(Spec):
    """Makes no tiny set."""

    kind: Literal["untried"] = "untried"
    builds = ":make_part"
    gives = frozenset({"images"})
    source = "made up"


class Unlabelled(Spec):
    """Four numbers, and a label too few."""

    kind: Literal["unlabelled"] = "unlabelled"
    builds = ":make_part"
    source = "made up"

    @classmethod
    def tiny(cls, folder: str) -> "Unlabelled":
        return cls()


def make_part() -> Any:
    from contralex.plugin import Source, Split

    class Four(Split):
        labels = (0, 0, 1)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return index

    class Part(Source):
        def train(self) -> Any:
            return Four()

        def test(self) -> Any:
            return None

    return Part()


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [Untried, Unlabelled]
'''
EXPECTED = """

@hookimpl
def contralex_expected_failures():
    return {expected}
"""
BOUNDS = "contralex>=0.1,<2"


def outcomes(distribution: str) -> dict[str, Outcome]:
    return {case.id: case.run() for case in cases(distribution)}


def test_a_failure_that_is_declared_is_expected(fake_plugin: Install) -> None:
    id = "data_reads[data unlabelled]"
    fake_plugin("sets", DATA + EXPECTED.format(expected={id: "it shows how labels go wrong"}), requires=BOUNDS)
    found = outcomes("sets")
    assert found[id] == Outcome(id, "expected failure", "it shows how labels go wrong")
    assert [outcome for outcome in found.values() if outcome.bad] == []


def test_a_declared_failure_that_passes_is_bad(fake_plugin: Install) -> None:
    id = "documented[data unlabelled]"
    fake_plugin("sets", DATA + EXPECTED.format(expected={id: "nobody wrote one"}), requires=BOUNDS)
    found = outcomes("sets")[id]
    assert found.bad
    assert (found.state, found.reason) == (
        "unexpected pass",
        "it is declared to fail (nobody wrote one), and passes",
    )


def test_a_declared_failure_of_no_case_is_an_error(fake_plugin: Install) -> None:
    fake_plugin("sets", DATA + EXPECTED.format(expected={"data_reads[data unlabeled]": "?"}), requires=BOUNDS)
    with pytest.raises(ContralexError, match=r"names 'data_reads\[data unlabeled\]', which is no case"):
        cases("sets")


def test_a_plugin_that_cannot_be_used_has_no_cases(fake_plugin: Install) -> None:
    fake_plugin("sets", "raise RuntimeError('no luck today')")
    with pytest.raises(ContralexError, match=r"sets is broken, so nothing of it can be checked: .*no luck today"):
        cases("sets")
    with pytest.raises(ContralexError, match=r"no plugin 'set' is installed; there are contralex, "):
        cases("set")


# Under pytest

TEST = """
from contralex.testing import Conformance

class TestConformance(Conformance):
    distribution = {name!r}
"""


def test_a_plugins_test_file_passes_fails_and_skips(fake_plugin: Install, pytester: pytest.Pytester) -> None:
    fake_plugin("sets", DATA, requires=BOUNDS)
    pytester.makepyfile(TEST.format(name="sets"))
    result = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=14, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "data_reads?data unlabelled?: the train split has 4 items and 3 labels",
            "What is asked: The tiny set of the kind can be read*",
            "SKIPPED*the kind makes no tiny set of its own*",
        ]
    )
    assert result.ret == 1


def test_a_plugins_test_file_fails_as_expected(fake_plugin: Install, pytester: pytest.Pytester) -> None:
    expected = {"data_reads[data unlabelled]": "it shows how labels go wrong", "documented[data untried]": "?"}
    fake_plugin("sets", DATA + EXPECTED.format(expected=expected), requires=BOUNDS)
    pytester.makepyfile(TEST.format(name="sets"))
    result = pytester.runpytest_inprocess("-rx", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=13, failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*it is declared to fail (?), and passes*", "XFAIL*it shows how labels go wrong*"])


def test_a_plugins_test_file_says_what_is_not_installed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST.format(name="nowhere"))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret != 0
    assert "no plugin 'nowhere' is installed" in result.stdout.str() + result.stderr.str()


# On the command line

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs ``contralex check ...`` in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["contralex", "check", *words])
        try:
            code = main()
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_check_says_what_fails(fake_plugin: Install, call: Call) -> None:
    fake_plugin("sets", DATA, requires=BOUNDS)
    code, out, err = call("sets")
    assert (code, err) == (1, "")
    assert re.search(r"data_reads\[data unlabelled\]\s+failed\s+the train split has 4 items and 3 labels", out)
    assert "sets: 14 passed, 1 failed, 1 not applicable" in out


def test_check_of_what_holds(fake_plugin: Install, call: Call) -> None:
    fake_plugin("sets", DATA, requires=BOUNDS)
    code, out, _ = call("sets", "--only", "untried")
    assert code == 0
    assert "sets: 6 passed, 1 not applicable" in out
    assert "unlabelled" not in out


def test_check_answers_in_json(fake_plugin: Install, call: Call) -> None:
    fake_plugin("sets", DATA, requires=BOUNDS)
    code, out, _ = call("sets", "--json", "--only", "data_reads")
    assert code == 1
    assert [one["state"] for one in json.loads(out)] == ["not applicable", "failed"]
    assert set(json.loads(out)[0]) == {"id", "state", "reason", "traceback"}


RAISES = '''
from typing import Literal
from contralex.plugin import Spec, hookimpl

class Raises(Spec):
    """It divides by how much the vectors differ."""

    kind: Literal["raises"] = "raises"
    builds = ":make_part"
    gives = frozenset({"vectors"})
    source = "arXiv:0000.00000"

def make_part():
    from contralex.plugin import TargetGenerator, Targets

    class Part(TargetGenerator):
        def forward(self, queries, keys, dictionary, match, step):
            if not keys.vectors.std(dim=0).any():
                raise ZeroDivisionError("there is no difference")
            return Targets(vectors=keys.select_matching(queries, match).vectors)

    return Part()

@hookimpl
def contralex_target_generators():
    return [Raises]
'''


def test_a_part_that_raises_is_told_with_input_file_and_line(fake_plugin: Install, call: Call) -> None:
    fake_plugin("raises", RAISES, requires=BOUNDS)
    code, out, _ = call("raises", "--only", "degenerate_input[targets raises, shared without gradient, none]")
    line = next(number for number, text in enumerate(RAISES.splitlines(), 1) if "raise Zero" in text)
    assert code == 1
    wanted = rf"it raised ZeroDivisionError: there is no difference, on [a-z ]+, at .*raises\.py:{line}"
    assert re.search(wanted, out)
    assert "Traceback" not in out
    code, out, _ = call("raises", "-v", "--only", "degenerate_input[targets raises, shared without gradient, none]")
    assert code == 1
    assert "Traceback (most recent call last)" in out
    assert 'raise ZeroDivisionError("there is no difference")' in out


def test_pytest_verbose_shows_the_traceback(fake_plugin: Install, pytester: pytest.Pytester) -> None:
    fake_plugin("raises", RAISES, requires=BOUNDS)
    pytester.makepyfile(TEST.format(name="raises"))
    for options, shown in ((["-q"], False), (["-v"], True)):
        result = pytester.runpytest_inprocess(*options, "-k", "degenerate_input", "-x", "-p", "no:cacheprovider")
        assert ("Traceback (most recent call last)" in result.stdout.str()) is shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "no plugin 'nowhere' is installed"),
        (["sets", "--only", "nothing"], "--only nothing: no check of sets has this text in its name"),
    ],
)
def test_check_refuses_in_one_sentence(fake_plugin: Install, call: Call, words: list[str], sentence: str) -> None:
    fake_plugin("sets", DATA, requires=BOUNDS)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert sentence in err
    assert "Traceback" not in err
