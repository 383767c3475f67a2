"""The command line: what it prints, its exit codes, and that it answers without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import contralex.training
from contralex.plugin import ContralexError
from contralex.plugins.registry import registry

Write = Callable[..., str]
Result = tuple[int, str, str]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Stands for training and the launcher, and keeps what they were called with."""
    seen: dict[str, Any] = {}
    run, launch = types.ModuleType("contralex.training.run"), types.ModuleType("contralex.training.launch")
    run.train_in_folder = lambda *given: seen.update(train=given) or (tmp_path, {})  # type: ignore[attr-defined]
    launch.launch = lambda *given, to_stderr: seen.update(launch=given) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "contralex.training.run", run)
    monkeypatch.setitem(sys.modules, "contralex.training.launch", launch)
    monkeypatch.setattr(contralex.training, "launch", launch, raising=False)  # where another test has imported it
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return seen


@pytest.fixture
def packed(fake_plugin: Callable[..., Path], recipe: Write) -> Path:
    """A plugin that offers one recipe, ``packed``."""
    folder = fake_plugin(
        "foo",
        """
        from pathlib import Path
        from contralex.plugin import hookimpl

        @hookimpl
        def contralex_recipes():
            return Path(__file__).parent / "recipes"
        """,
    )
    (folder / "recipes").mkdir()
    text = Path(recipe()).read_text("utf-8").replace("name: small", "name: packed")
    (folder / "recipes" / "packed.yaml").write_text(text, "utf-8")
    return folder


# Without torch, and quickly


@pytest.mark.parametrize(
    "words", [["methods"], ["plugins"], ["schema"], ["--help"], ["show", "RECIPE"], ["diff", "RECIPE", "RECIPE"]]
)
def test_looking_imports_no_torch(words: list[str], recipe: Write) -> None:
    words = [recipe() if word == "RECIPE" else word for word in words]
    code = (
        "import sys; from contralex.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Looking


def test_methods(call: Callable[..., Result], packed: Path) -> None:
    code, out, _ = call("methods")
    assert code == 0
    assert "packed\tA recipe for tests.\tfoo 1.0\tquick\n" in out
    (row,) = [row for row in json.loads(call("methods", "--json")[1]) if row["plugin"] == "foo"]
    assert row == {
        "name": "packed",
        "summary": "A recipe for tests.",
        "plugin": "foo",
        "version": "1.0",
        "presets": ["quick"],
    }
    assert call("show", "packed")[1].endswith("\n# presets, for --preset: quick\n")


def test_one_unreadable_recipe_hides_no_other(call: Callable[..., Result], packed: Path) -> None:
    (packed / "recipes" / "bad.yaml").write_text("a: [", "utf-8")
    registry.cache_clear()
    code, out, _ = call("methods")
    assert code == 0
    assert "packed\tA recipe" in out
    assert "bad\tcannot be read: bad.yaml:" in out


def test_plugins(
    call: Callable[..., Result], fake_plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_plugin("foo", "1 / 0")
    monkeypatch.setenv("CONTRALEX_PLUGINS", "foo,nothing")
    code, out, err = call("plugins")
    assert code == 0
    assert "foo\t1.0\tbroken\timporting foo raised ZeroDivisionError: division by zero\n" in out
    assert err == "CONTRALEX_PLUGINS names nothing, but no plugin of this name is installed\n"
    found = json.loads(call("plugins", "--json")[1])
    assert found["unmatched"] == ["nothing"]
    core = next(plugin for plugin in found["plugins"] if plugin["name"] == "contralex")
    assert "queue" in core["kinds"]["negatives"]


def test_show_prints_what_can_be_run_again(call: Callable[..., Result], recipe: Write) -> None:
    path = recipe()
    code, out, _ = call("show", path, "--preset", "quick", "--set", "train.batch_size=8", "--data", "cifar10")
    assert code == 0
    again = recipe(out, "again.yaml")
    assert call("show", again)[1] == out
    shown = json.loads(call("show", again, "--json")[1])
    assert (shown["spec"]["train"]["epochs"], shown["spec"]["train"]["batch_size"]) == (1, 8)
    assert shown["spec"]["data"]["kind"] == "cifar10"
    assert len(shown["digest"]) == 64


def test_show_begins_with_the_line_that_editors_read(call: Callable[..., Result], recipe: Write) -> None:
    first, second, *_ = call("show", recipe())[1].splitlines()
    assert (first, second) == ("# yaml-language-server: $schema=contralex.schema.json", "schema: 1")


def test_schema_is_printed_or_written(call: Callable[..., Result], tmp_path: Path) -> None:
    code, out, err = call("schema")
    assert (code, err) == (0, "")
    file = tmp_path / "contralex.schema.json"
    assert call("schema", "--out", str(file)) == (0, "", "")
    assert json.loads(file.read_text("utf-8")) == json.loads(out)
    assert [path.name for path in tmp_path.iterdir()] == ["contralex.schema.json"]
    code, out, err = call("schema", "--out", str(tmp_path / "nowhere" / "x.json"))
    assert (code, out) == (2, "")
    assert err.endswith("the file cannot be written (No such file or directory)\n")


def test_diff(call: Callable[..., Result], recipe: Write) -> None:
    one = recipe()
    other = recipe("schema: 1\nextends: small.yaml\ntrain: {epochs: 9}\n", "other.yaml")
    assert call("diff", one, other) == (0, "train.epochs: 2 → 9\n", "")
    assert call("diff", one, one) == (0, f"{one} and {one} are the same run.\n", "")
    assert json.loads(call("diff", one, other, "--json")[1]) == [{"path": "train.epochs", "before": "2", "after": "9"}]


def test_why(call: Callable[..., Result], recipe: Write) -> None:
    path = recipe()
    _, out, _ = call("why", path, "method.loss", "--set", "method.loss.temperature=0.2")
    assert out.splitlines()[:5] == [
        "method.loss.kind = info_nce",
        f"    file {path}, line 19",
        "method.loss.temperature = 0.2",
        "    --set",
        f"    over 0.1: file {path}, line 19",
    ]
    _, out, _ = call("why", path, "method.views.engine")  # which no resolved spec writes where it is the default
    assert out == "method.views.engine = exact\n    default of crops\n"
    code, _, err = call("why", path, "method.los.temperature")
    assert (code, err) == (2, f"Error: method.los.temperature: {path} has no such value; did you mean loss?\n")
    _, _, err = call("why", path, "train.epochs.deep")
    assert err == f"Error: train.epochs.deep: {path} has no such value; train.epochs is a single value\n"


def test_doctor(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, fake_plugin: Callable[..., Path]) -> None:
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == (1 if found["problems"] else 0)
    assert found["facts"]["Python"].startswith("3.")
    fake_plugin("foo", "")
    fake_plugin("foo", "", version="2.0")
    fake_plugin("bar", "import nowhere")
    fake_plugin("baz", "")
    monkeypatch.setattr("contralex.plugins.first_party.known_recipes", lambda: {"baz-v1": "baz"})
    code, out, _ = call("doctor", "--json")
    problems = "\n".join(json.loads(out)["problems"])
    assert code == 1
    assert "foo is installed 2 times, in " in problems
    assert "bar is broken: importing bar raised ModuleNotFoundError" in problems
    assert "baz is 1.0 and contralex " in problems


# Mistakes and exit codes


def test_a_mistake_is_a_sentence_without_a_traceback(call: Callable[..., Result], recipe: Write) -> None:
    path = recipe()
    code, out, err = call("show", path, "--set", "method.loss.temprature=1")
    assert (code, out) == (2, "")
    assert err == "Error: method.loss.temprature: there is no such field; did you mean temperature? (--set)\n"


def test_a_recipe_that_a_package_brings_says_which(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contralex.plugins.first_party.known_recipes", lambda: {"wonder": "contralex-wonder"})
    code, _, err = call("train", "wonder")
    assert code == 2
    assert err.endswith("it comes with contralex-wonder: pip install contralex-wonder\n")


def test_a_command_that_a_package_brings_says_which(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contralex.plugins.first_party.known_commands", lambda: {"wonder": "contralex-wonder"})
    code, _, err = call("wonder", "runs/mine")
    assert code == 2
    assert err == (
        "Error: no command 'wonder' is installed; it comes with contralex-wonder: pip install contralex-wonder\n"
    )
    assert "No such command 'wander'" in call("wander")[2]


def test_help_teaches(call: Callable[..., Result]) -> None:
    for words in (
        ["eval", "knn"],
        ["plugins", "show"],
        [],
        ["train"],
        ["finetune"],
        ["distill"],
        ["show"],
        ["diff"],
        ["why"],
        ["methods"],
        ["plugins"],
        ["schema"],
        ["doctor"],
        ["linear"],
        ["compare"],
    ):
        code, out, _ = call(*words, "--help")
        assert code == 0
        assert "Examples:\n" in out, words
    assert call("--version")[1].startswith("contralex ")


def test_ctrl_c_is_130(call: Callable[..., Result], trained: dict[str, Any], recipe: Write) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    sys.modules["contralex.training.run"].train_in_folder = interrupted  # type: ignore[attr-defined]
    assert call("train", recipe())[0] == 130


def test_a_run_that_was_stopped_is_no_mistake(
    call: Callable[..., Result], trained: dict[str, Any], recipe: Write
) -> None:
    class Stopped(ContralexError):
        exit_code = 130

    def stopped(*given: object) -> None:
        raise Stopped("Stopped at step 3.")

    sys.modules["contralex.training.run"].train_in_folder = stopped  # type: ignore[attr-defined]
    assert call("train", recipe()) == (130, "", "Stopped at step 3.\n")


# Training


def test_train_resolves_and_starts(call: Callable[..., Result], trained: dict[str, Any], recipe: Write) -> None:
    code, _, _ = call("train", recipe(), "--preset", "quick", "--out", "runs/x", "--set", "train.seed=3")
    assert code == 0
    resolved, out, *flags = trained["train"]
    assert (resolved.run.train.epochs, resolved.run.train.seed, out) == (1, 3, Path("runs/x"))
    assert flags == [False, False, "stdout"]


def test_several_processes_are_launched_once(
    call: Callable[..., Result], trained: dict[str, Any], recipe: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe()
    words = ["train", path, "--preset", "quick", "--set", "train.seed=3", "--processes", "2"]
    assert call(*words)[0] == 3  # the launcher's exit code
    argv, processes = trained.pop("launch")
    assert (argv, processes) == (["train", "--preset=quick", "--set=train.seed=3", "--", path], 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    left: list[int] = []
    monkeypatch.setattr("contralex.__main__._leave", left.append)  # it would end the tests as well
    assert call(*argv)[0] == 0
    assert call(*words)[0] == 0
    assert "launch" not in trained
    assert left == [0, 0]


def test_a_mistake_shows_before_anything_is_launched(
    call: Callable[..., Result], trained: dict[str, Any], recipe: Write
) -> None:
    assert call("train", recipe(), "--set", "train.epochs=0", "--processes", "2")[0] == 2
    assert trained == {}


def test_resume_takes_the_spec_of_the_run(
    call: Callable[..., Result], trained: dict[str, Any], recipe: Write, tmp_path: Path
) -> None:
    assert call("train", "--resume")[2] == "Error: --resume: say which run with --out, such as --out runs/my-run\n"
    assert call("train")[2].startswith("Error: train what? ")
    folder = str(tmp_path)
    assert call("train", "--resume", "--out", folder)[2].startswith(f"Error: --resume: {folder} holds no spec.yaml")
    recipe(name="spec.yaml")
    assert call("train", "--resume", "--out", folder)[0] == 0
    resolved, out, resume, allow_drift, _ = trained["train"]
    assert (resolved.run.name, out, resume, allow_drift) == ("small", tmp_path, True, False)


def test_eval_of_nothing(call: Callable[..., Result]) -> None:
    code, _, err = call("eval", "knn", "no-such-run")
    assert (code, err.split(";")[0]) == (2, "Error: there is no folder no-such-run")


@pytest.mark.parametrize("words", [["eval", "linear"], ["linear"]], ids=" ".join)
def test_linear_prints_a_table_or_json(
    words: list[str], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _, err = call(*words, "no-such-run")
    assert (code, err.split(";")[0]) == (2, "Error: there is no folder no-such-run")
    judged = {"this run": {"top1": 0.5, "top5": 0.75, "protocol": {"solver": "L-BFGS", "classes": 10}}}
    offline = types.ModuleType("contralex.training.evaluate_run")
    offline.evaluate = lambda name, checkpoint, data, sets, allow_code: judged  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "contralex.training.evaluate_run", offline)
    said = "features\ttop1\ttop5\nthis run\t50.0%\t75.0%\nlinear probe: solver L-BFGS, classes 10\n"
    assert call(*words, str(tmp_path)) == (0, said, "")
    assert json.loads(call(*words, str(tmp_path), "--json")[1]) == judged


def test_a_command_of_a_plugin_is_an_evaluation_too(call: Callable[..., Result]) -> None:
    code, out, _ = call("eval", "finetune", "--help")
    assert code == 0 and "Train a run's encoder as a classifier." in out
    assert "finetune" not in call("eval", "--help")[1]


def test_an_evaluator_of_a_plugin_needs_no_command(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    offline = types.ModuleType("contralex.training.evaluate_run")
    result = {"this run": {"top1": 0.5, "top5": 0.75, "protocol": {"classes": 10}}}

    def evaluate(name: str, *_: object, allow_code: bool) -> object:
        asked.append(name)
        return result

    offline.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "contralex.training.evaluate_run", offline)
    code, out, _ = call("eval", "my-evaluator", str(tmp_path))
    assert (code, asked) == (0, ["my_evaluator"])
    assert out == "features\ttop1\ttop5\nthis run\t50.0%\t75.0%\nmy_evaluator: classes 10\n"


def test_a_plugin_may_add_to_eval_alone(call: Callable[..., Result], fake_plugin: Callable[..., Path]) -> None:
    code = """
        from contralex.plugin import hookimpl

        def probe(run: str) -> None:
            "Probe a run."
            print("probed", run)

        @hookimpl
        def contralex_commands():
            return {NAME: probe}
        """
    fake_plugin("foo", code.replace("NAME", "'eval probe'"))
    fake_plugin("bar", code.replace("NAME", "'plugins probe'"))
    fake_plugin("baz", code.replace("NAME", "'eval knn'"))
    assert call("eval", "probe", "x") == call("probe", "x") == (0, "probed x\n", "")
    assert "From foo:\n  probe " in call("eval", "--help")[1]
    out = call("plugins")[1]
    assert "bar\t1.0\tbroken\tContralexError: its command 'plugins probe' has a space" in out
    assert "baz\t1.0\tbroken\tContralexError: its command 'eval knn' is one of contralex's own" in out


def test_a_plugins_command_is_one_of_ours(call: Callable[..., Result], fake_plugin: Callable[..., Path]) -> None:
    fake_plugin(
        "foo",
        """
        from contralex.plugin import ContralexError, hookimpl

        def greet(name: str) -> None:
            "Say hello to somebody."
            if name == "nobody":
                raise ContralexError("greet whom?")
            print("hello", name)

        @hookimpl
        def contralex_commands():
            return {"greet": greet}
        """,
    )
    assert call("greet", "you") == (0, "hello you\n", "")
    assert call("greet", "nobody") == (2, "", "Error: greet whom?\n")
    assert "Say hello to somebody." in call("--help")[1]
    assert "greet" in call("plugins")[1]


def test_no_plugin_may_take_a_command_of_ours() -> None:
    from contralex.cli.app import app, evaluation
    from contralex.plugins.hooks import OWN_COMMANDS

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    groups = {group.name for group in app.registered_groups}
    in_eval = {f"eval {command.name or command.callback.__name__}" for command in evaluation.registered_commands}  # type: ignore[union-attr]
    assert commands | groups | in_eval == OWN_COMMANDS
