"""Plugins that take part in a run: own metrics, an early end, and hooks that fail, on one process and on two."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from contralex.errors import ContralexError
from contralex.lookup import batch_norm
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from contralex.training.build import load_encoder
from contralex.training.run import train
from contralex.training.run_state import PreparedMethod
from contralex.training.stop_errors import HookFailed
from tests.processes import contralex
from tests.train.tiny import TINY

Install = Callable[..., Path]
Tiny = Callable[..., Any]
STEP = "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_step_end(run, metrics):\n    "


@pytest.fixture
def tiny(images: Path) -> Tiny:
    def resolved(*sets: str) -> Any:
        return resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, "plugins=[foo]", *sets])

    return resolved


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def last(folder: Path) -> str:
    return (folder / "checkpoints" / "last").read_text().strip()


def test_a_plugin_of_hooks_alone_takes_part_where_the_spec_names_it(
    tiny: Tiny, fake_plugin: Install, tmp_path: Path
) -> None:
    code = """
    import torch
    from contralex.plugin import hookimpl

    called = []

    @hookimpl
    def contralex_run_start(run):
        called.append(("start", run.step))

    @hookimpl
    def contralex_step_end(run, metrics):
        metrics["double"] = 2 * run.step
        metrics["tensor"] = torch.tensor([1.5])

    @hookimpl
    def contralex_epoch_end(run, epoch, metrics):
        metrics["third"] = epoch / 3
        called.append(("epoch", epoch, run.logged["loss"] > 0))

    @hookimpl
    def contralex_checkpoint(folder):
        called.append(("checkpoint", folder.rpartition("/")[2]))

    @hookimpl
    def contralex_run_end(run, results):
        results["mine"] = {"a": 1}
    """
    fake_plugin("foo", code)
    assert tiny().plugins == {"contralex": resolve("simclr-v1").plugins["contralex"], "contralex-simclr": "0.1.0"} | {
        "foo": "1.0"
    }
    train(tiny("plugins=[]"), tmp_path / "without")
    called = registry().plugins["foo"].module.called  # type: ignore[union-attr]
    assert called == []
    results = train(tiny(), tmp_path / "run")
    assert (results["mine"], results["stopped"]) == ({"a": 1}, None)
    assert called == [("start", 0), ("epoch", 1, True), ("epoch", 2, True), ("checkpoint", "step-10")]
    logged = lines(tmp_path / "run")
    assert [(line["double"], line["tensor"]) for line in logged if "loss" in line] == [
        (step, 1.5) for step in (4, 8, 12, 16, 20)
    ]
    assert [line["third"] for line in logged if "third" in line] == pytest.approx([1 / 3, 2 / 3])
    assert [line["loss"] for line in lines(tmp_path / "without")] == [line["loss"] for line in logged if "loss" in line]


@pytest.mark.parametrize(("options", "after_steps"), [("", 10), ("(uses_encoders=False)", 0)])
def test_processes_prepare_encoders_for_hooks_that_use_them(
    tiny: Tiny, fake_plugin: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, after_steps: int
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(batch_norm, "average_running_statistics", lambda _: prepared.append("averaged"))
    monkeypatch.setattr(PreparedMethod, "whole", lambda _: prepared.append("gathered") or nullcontext())
    fake_plugin("foo", STEP.replace("@hookimpl", f"@hookimpl{options}") + "metrics['double'] = 2 * run.step\n")
    train(tiny(), tmp_path / "run")
    assert prepared.count("averaged") == after_steps + 3  # two epochs end, and one checkpoint is saved
    assert prepared.count("gathered") == after_steps + 4  # for them, and where the run begins and ends
    assert [line["double"] for line in lines(tmp_path / "run") if "loss" in line] == [4, 8, 12, 16, 20]


@pytest.mark.parametrize(("ask", "step"), [(3, 3), (5, 5)])
def test_a_plugin_ends_a_run_early_and_well(
    tiny: Tiny, ask: int, step: int, fake_plugin: Install, tmp_path: Path
) -> None:
    fake_plugin("foo", STEP + f"run.stop('no better') if run.step == {ask} else None\n")
    results = train(tiny("eval.knn={k: 5, baselines: false}"), tmp_path / "run")
    assert results["stopped"] == {"by": "foo", "reason": "no better"}
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert (results["steps"], last(tmp_path / "run")) == (step, f"step-{step}")
    assert results["knn"]["this run"]["top1"] > 0
    assert lines(tmp_path / "run")[-1]["step"] == step
    resumed = train(tiny("eval.knn={k: 5, baselines: false}"), tmp_path / "run", resume=True)
    assert (resumed["steps"], resumed["stopped"]) == (10, None)


def test_a_plugin_may_end_a_run_before_it_begins(tiny: Tiny, fake_plugin: Install, tmp_path: Path) -> None:
    fake_plugin(
        "foo", "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_run_start(run):\n    run.stop('why')\n"
    )
    results = train(tiny(), tmp_path / "run")
    assert (results["steps"], results["stopped"]["reason"], last(tmp_path / "run")) == (0, "why", "step-0")


def test_a_hook_that_raises_stops_the_run_with_a_checkpoint(tiny: Tiny, fake_plugin: Install, tmp_path: Path) -> None:
    fake_plugin("foo", STEP + "assert run.step != 3, 'three'\n")
    folder = tmp_path / "run"
    with pytest.raises(HookFailed) as error:
        train(tiny(), folder)
    assert error.value.exit_code == 1
    assert str(error.value) == (
        "the plugin foo failed in its hook contralex_step_end: AssertionError: three. "
        f"The run stopped at step 3 of 10, saved as {folder / 'checkpoints' / 'step-3'}; "
        "mend the plugin, then go on, or go on whatever the hook does:\n"
        f"  contralex train --out {folder} --resume\n"
        f"  contralex train --out {folder} --resume --set train.on_hook_error=warn"
    )
    assert last(folder) == "step-3"
    assert not (folder / "results.json").exists()
    # What the sentence says works: the hook does not fail at step 4, and the policy may change.
    assert train(tiny("train.on_hook_error=warn"), folder, resume=True)["steps"] == 10


MISTAKE = "raise ContralexError('method.x is 3; set it to 2')\n"
IMPORTS = "from contralex.plugin import ContralexError, hookimpl\n"


def test_a_mistake_that_a_hook_finds_is_the_users(tiny: Tiny, fake_plugin: Install, tmp_path: Path) -> None:
    fake_plugin("foo", IMPORTS + f"@hookimpl\ndef contralex_run_start(run):\n    {MISTAKE}")
    with pytest.raises(ContralexError) as error:
        train(tiny(), tmp_path / "run")
    assert (str(error.value), error.value.exit_code) == ("method.x is 3; set it to 2", 2)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_mistake_that_a_hook_finds_later_costs_no_step(tiny: Tiny, fake_plugin: Install, tmp_path: Path) -> None:
    fake_plugin("foo", IMPORTS + f"@hookimpl\ndef contralex_step_end(run):\n    if run.step == 3:\n        {MISTAKE}")
    folder = tmp_path / "run"
    with pytest.raises(ContralexError, match=r"method.x is 3; set it to 2\nThe run stopped at step 3 of 10") as error:
        train(tiny(), folder)
    assert error.value.exit_code == 2 and "plugin" not in str(error.value)
    assert last(folder) == "step-3"
    assert train(tiny(), folder, resume=True)["steps"] == 10


def test_a_mistake_that_a_hook_finds_is_only_reported_where_the_spec_says_so(
    tiny: Tiny, fake_plugin: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_plugin("foo", IMPORTS + f"@hookimpl\ndef contralex_run_start(run):\n    {MISTAKE}")
    assert train(tiny("train.on_hook_error=warn"), tmp_path / "run")["steps"] == 10
    assert [record.getMessage()[:26] for record in caplog.records if record.name == "contralex"] == [
        "method.x is 3; set it to 2"
    ]


def test_a_hook_that_raises_is_reported_once_where_the_spec_says_so(
    tiny: Tiny, fake_plugin: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = STEP + "metrics['half'] = 1\n    1 / 0\n@hookimpl\ndef contralex_epoch_end(epoch):\n    {}[epoch]\n"
    fake_plugin("foo", code)
    results = train(tiny("train.on_hook_error=warn"), tmp_path / "run")
    assert results["steps"] == 10
    said = [record.getMessage() for record in caplog.records if record.name == "contralex"]
    assert [message.partition(";")[0] for message in said] == [
        "the plugin foo failed in its hook contralex_step_end: ZeroDivisionError: division by zero",
        "the plugin foo failed in its hook contralex_epoch_end: KeyError: 1",
    ]
    assert not any("half" in line for line in lines(tmp_path / "run"))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (STEP + "metrics['loss'] = 1\n", "the metric 'loss' is the run's own; log it under another name"),
        (STEP + "metrics['mine'] = 'good'\n", "the metric 'mine' is 'good', and not a number"),
        (STEP + "raise SystemExit(0)\n", "SystemExit: 0"),
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_run_start():\n    {}[0]\n",
            "failed in its hook contralex_run_start: KeyError: 0. The run stopped at step 0 of 10, saved as",
        ),
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_checkpoint():\n    {}[0]\n",
            "failed in its hook contralex_checkpoint: KeyError: 0. The run stopped at step 10 of 10, saved as",
        ),
        (
            "from contralex.plugin import hookimpl\n"
            "@hookimpl\ndef contralex_run_end(results):\n    results['a'] = {1, 2}\n",
            "TypeError: Object of type set is not JSON serializable. The run itself is over, and its results are in",
        ),
    ],
)
def test_what_a_hook_may_not_do(tiny: Tiny, code: str, sentence: str, fake_plugin: Install, tmp_path: Path) -> None:
    fake_plugin("foo", code)
    with pytest.raises(HookFailed) as error:
        train(tiny(), tmp_path / "run")
    assert sentence in str(error.value)
    assert last(tmp_path / "run").startswith("step-")


@pytest.mark.parametrize(
    ("code", "names", "sentence"),
    [
        (
            "",
            "[fooo]",
            "plugins names fooo, and no plugin of this name is installed: pip install fooo, or take it out; ",
        ),
        ("1 / 0", "[foo]", "plugins names foo, which is broken: importing foo raised ZeroDivisionError: division by"),
    ],
)
def test_plugins_that_cannot_take_part(tiny: Tiny, fake_plugin: Install, code: str, names: str, sentence: str) -> None:
    fake_plugin("foo", code)
    with pytest.raises(ContralexError) as error:
        tiny(f"plugins={names}")
    assert sentence in str(error.value)
    assert str(error.value).endswith("(--set)")


def test_plugins_are_compared_as_pip_does_and_named_once(tiny: Tiny, fake_plugin: Install) -> None:
    fake_plugin("Foo-Bar", "")
    assert list(tiny("plugins=[foo_bar, FOO-BAR]").plugins) == ["contralex", "Foo-Bar", "contralex-simclr"]


# As a user runs it, with hooks and a part in a file of their own

CODE = """
from typing import Literal
from contralex.plugin import Spec, hookimpl
from contralex.lookup.distributed import rank, world

class Mine(Spec):
    kind: Literal["mine"] = "mine"
    builds = "contralex.plugin:InfoNCE"
    temperature: float
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}

@hookimpl
def contralex_losses():
    return [Mine]

@hookimpl
def contralex_step_end(run, metrics):
    metrics["doubled"] = 2 * run.step
    if run.step == 3 and rank() == world() - 1:
        ACTION
"""


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], Path]:
    def write(action: str) -> Path:
        (tmp_path / "my_part.py").write_text(CODE.replace("ACTION", action))
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(
            "schema: 1\nextends: simclr-v1\ncode: my_part.py\nmethod: {loss: {kind: mine, temperature: 0.2}}\n"
        )
        return recipe

    return write


def started(recipe: Path, images: Path, folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    sets = [f"--set={text}" for text in TINY]
    options = (
        "--preset=digits",
        f"--out={folder}",
        f"--processes={processes}",
        f"--data={images}",
        "--allow-code",
        *sets,
    )
    return contralex("train", recipe, *options)


def test_an_encoder_of_such_a_run_is_loaded_with_permission(
    mine: Callable[[str], Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = mine("pass"), tmp_path / "run"
    sets = [*TINY, "train.epochs=1"]
    train(resolve(str(recipe), preset="digits", data=str(images), sets=sets, allow_code=True), folder)
    state = json.loads((folder / "checkpoints" / last(folder) / "state.json").read_text())
    sha256 = hashlib.sha256((tmp_path / "my_part.py").read_bytes()).hexdigest()
    assert state["spec"]["code"] == [{"file": str(tmp_path / "my_part.py"), "sha256": sha256}]
    monkeypatch.setattr("contralex.recipes.code_files._loaded", {})  # as in another process
    with pytest.raises(ContralexError, match=r"state\.json: code names .*my_part\.py, a Python file that would be run"):
        load_encoder(folder)
    assert not load_encoder(folder, allow_code=True).training


def test_without_permission_nothing_is_trained(mine: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = mine("pass")
    for words in (["train", recipe, "--out", tmp_path / "run"], ["show", recipe], ["why", recipe, "method"]):
        done = contralex(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "if you trust it, say so: --allow-code" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_process_that_fails_takes_the_others_along_in_good_order(
    mine: Callable[[str], Path], images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = started(mine("raise ValueError('only here')"), images, folder, 2)
    assert done.returncode == 1
    assert done.stderr.count("the plugin my_part.py failed in its hook contralex_step_end: ValueError: only here") == 1
    assert "Traceback" not in done.stderr
    assert last(folder) == "step-4"  # the other process hears of it a step later
    assert f"contralex train --out {folder} --resume --allow-code" in done.stderr

    # Resuming runs the file again, so it asks again; and only the very file that the run was started with.
    assert "say so: --allow-code" in contralex("train", "--resume", "--out", folder).stderr
    done = contralex("train", "--resume", "--out", folder, "--allow-code", "--processes=2")
    assert done.returncode == 0, done.stderr
    assert [line["doubled"] for line in lines(folder)] == [4, 8, 12, 16, 20]
    assert json.loads((folder / "results.json").read_text())["processes"] == 2
    assert "say so: --allow-code" in contralex("eval", "knn", folder).stderr
    done = contralex("eval", "knn", folder, "--allow-code", "--json", "--set=eval.knn={k: 5, baselines: false}")
    assert json.loads(done.stdout)["this run"]["top1"] > 0
    mine("pass")
    for words in (["train", "--resume", "--out", folder], ["eval", "knn", folder]):
        done = contralex(*words, "--allow-code")
        assert done.returncode == 2
        assert f"{tmp_path / 'my_part.py'} has changed since: its sha256 was" in done.stderr


def test_one_process_asks_for_the_end_and_all_come_to_it(
    mine: Callable[[str], Path], images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = started(mine("run.stop('enough')"), images, folder, 2)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text())
    assert results["stopped"] == {"by": "my_part.py", "reason": "enough"}
    assert (results["steps"], last(folder)) == (4, "step-4")
    assert "Stopped at step 4 of 10, as my_part.py asked: enough" in done.stdout
