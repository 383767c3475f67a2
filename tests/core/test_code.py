"""`code: ./my_part.py` in a recipe: run only with permission, known by its hash, and scoped to its spec."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contralex import resolve
from contralex.plugin import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes.code_files import Portable
from contralex.recipes.diff import diff
from contralex.recipes.layers import resolve_data
from contralex.training import build

Write = Callable[..., str]
PART = """\
from typing import Literal
from contralex.plugin import Spec, hookimpl
from contralex.recipes.schedules import Number

class Mine(Spec):
    kind: Literal["mine"] = "mine"
    builds = "contralex.plugin:InfoNCE"
    temperature: Number
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "mine"

@hookimpl
def contralex_losses():
    return [Mine]
"""
MINE = "schema: 1\nextends: small.yaml\ncode: ./my_part.py\nmethod: {loss: {kind: mine, temperature: 0.3}}\n"


@pytest.fixture
def mine(recipe: Write, tmp_path: Path) -> str:
    recipe()
    (tmp_path / "my_part.py").write_text(PART)
    return recipe(MINE, "mine.yaml")


def refused(path: str, **options: object) -> str:
    with pytest.raises(ContralexError) as error:
        resolve(path, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_nothing_is_run_without_permission(recipe: Write, tmp_path: Path) -> None:
    recipe()
    (tmp_path / "my_part.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    path = recipe(MINE, "mine.yaml")
    assert refused(path) == (
        f"{path}:3: code names {tmp_path / 'my_part.py'}, a Python file that would be run; "
        "if you trust it, say so: --allow-code (in Python: allow_code=True)"
    )
    assert not (tmp_path / "ran").exists()
    refused(path, allow_code=True)  # it offers no kind `mine`
    assert (tmp_path / "ran").exists()


def test_its_kinds_are_used_and_its_hash_is_kept(mine: str, tmp_path: Path) -> None:
    resolved = resolve(mine, allow_code=True)
    file, sha256 = str(tmp_path / "my_part.py"), hashlib.sha256(PART.encode()).hexdigest()
    assert resolved.data["method"]["loss"] == {"kind": "mine", "temperature": 0.3}
    assert resolved.code == {file: sha256}
    assert resolved.data["code"] == [{"file": file, "sha256": sha256}]
    assert list(resolved.plugins) == ["contralex"]
    assert [str(origin) for origin in resolved.origins["code.0.file"]] == [f"file {mine}, line 3"]
    assert registry().owner("loss", "mine").name == "my_part.py"  # type: ignore[union-attr]
    again = tmp_path / "elsewhere" / "full.yaml"
    again.parent.mkdir()
    again.write_text(resolved.to_yaml())
    assert resolve(str(again), allow_code=True).digest == resolved.digest


def test_a_spec_without_the_file_has_none_of_its_kinds(mine: str, tmp_path: Path) -> None:
    resolve(mine, allow_code=True)
    assert "code" not in resolve(str(tmp_path / "small.yaml")).data
    assert "mine" not in registry().kinds("loss")
    assert "no loss of kind 'mine'" in refused(str(tmp_path / "small.yaml"), sets=["method.loss.kind=mine"])


def test_a_changed_text_is_another_run_and_both_can_be_compared(mine: str, recipe: Write, tmp_path: Path) -> None:
    before = resolve(mine, allow_code=True)
    (tmp_path / "my_part.py").write_text(PART + "# another\n")
    assert "say so: --allow-code" in refused(mine)  # what was allowed is the text before
    after = resolve(mine, allow_code=True)
    assert before.digest != after.digest
    assert next(change.path for change in diff(before, after)) == "code"
    assert [change.path for change in diff(after, after)] == []


def test_what_is_pinned_is_refused_once_it_changed_before_it_is_run(mine: str, tmp_path: Path) -> None:
    data = resolve(mine, allow_code=True).data
    (tmp_path / "my_part.py").write_text("1 / 0")
    with pytest.raises(ContralexError) as error:
        resolve_data(data, allow_code=True, where="runs/x/state.json")
    old, new = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (PART, "1 / 0"))
    assert str(error.value) == (
        f"runs/x/state.json: {tmp_path / 'my_part.py'} has changed since: its sha256 was {old}…, and is {new}…; "
        "bring it back as it was, or start a new run with it as it is"
    )
    (tmp_path / "my_part.py").unlink()
    with pytest.raises(ContralexError, match="cannot be read \\(No such file or directory\\); put the file there"):
        resolve_data(data, allow_code=True)


def test_files_add_up_along_the_chain(mine: str, recipe: Write, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(PART.replace("mine", "other"))
    child = recipe("schema: 1\nextends: mine.yaml\ncode: [other.py]\nmethod: {loss: {kind: other}}\n", "child.yaml")
    sets = ["method.loss.temperature=1"]
    resolved = resolve(child, allow_code=True, sets=sets)
    assert [Path(file).name for file in resolved.code] == ["my_part.py", "other.py"]
    assert [str(one)[-6:] for one in resolved.origins["code.1.file"]] == ["line 3"]
    both = recipe("schema: 1\nextends: mine.yaml\ncode: [my_part.py, ./my_part.py]\n", "both.yaml")
    assert [Path(file).name for file in resolve(both, allow_code=True).code] == ["my_part.py"]
    (tmp_path / "other.py").write_text(PART)
    assert refused(child, allow_code=True, sets=sets) == (
        f"{tmp_path / 'other.py'} and my_part.py both offer loss kind 'mine'; give it another name in other.py"
    )


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (PART.replace('"mine"', '"cosine"'), "and contralex both offer loss kind 'cosine'; give it another name in my"),
        ("1 / 0", "my_part.py failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(2)", "my_part.py failed: SystemExit: 2"),
        ("def f(:", "my_part.py failed: SyntaxError: "),
        (PART.replace("losses", "lossses"), "my_part.py failed: there is no hook contralex_lossses; did you mean"),
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_step_end(nothing): pass\n",
            "my_part.py failed: PluginValidationError: ",
        ),
    ],
)
def test_files_that_do_not_work(mine: str, tmp_path: Path, code: str, sentence: str) -> None:
    (tmp_path / "my_part.py").write_text(code)
    assert sentence in refused(mine, allow_code=True)


@pytest.mark.parametrize("value", ["3", "[[a.py]]", "{path: a.py}", "{file: 3}", "{file: a.py, sha256: 3}", "{}"])
def test_what_code_may_be(recipe: Write, value: str) -> None:
    recipe()
    path = recipe(f"schema: 1\nextends: small.yaml\ncode: {value}\n", "mine.yaml")
    sentence = f"{path}:3: code is the path of a Python file such as ./my_part.py, or a list of paths"
    assert refused(path, allow_code=True) == sentence


def test_where_code_may_stand(mine: str, recipe: Write, fake_plugin: Callable[..., Path], tmp_path: Path) -> None:
    assert refused(mine, allow_code=True, sets=["code=x.py"]).endswith(
        "code can only stand in a file; set a value of the run"
    )
    preset = "schema: 1\nextends: small.yaml\npresets: {a: {code: x.py}}\n"
    assert refused(recipe(preset, "preset.yaml")).endswith("a preset changes method, data, train, eval, not code")
    folder = fake_plugin(
        "foo",
        "from pathlib import Path\nfrom contralex.plugin import hookimpl\n"
        "@hookimpl\ndef contralex_recipes():\n    return Path(__file__).parent\n",
    )
    (folder / "packed.yaml").write_text(MINE.replace("small.yaml", "moco-v2"))
    assert refused("packed", allow_code=True).startswith("packed.yaml:3: code names a Python file, and a packed recipe")


def test_a_pickle_that_another_process_reads_brings_the_file(mine: str, tmp_path: Path) -> None:
    """Workers that are not forked, as with a GPU, get their data set so."""
    resolved = resolve(mine, allow_code=True)
    (tmp_path / "my_part.py").write_text("the file changes while the run lasts")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Portable([resolved.run.method.loss])))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'pickle')!r}, 'rb'))[0].kind)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text("utf-8")
    (recipe,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "code:" in block)
    (part,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(recipe)
    (tmp_path / "my_part.py").write_text(part)
    run = resolve(str(tmp_path / "mine.yaml"), preset="digits", allow_code=True).run
    assert run.method.loss.kind_name() == "my_loss"
    loss: Any = build.look_up(run, dataset_size=2000).loss
    assert loss.temperature == 0.2  # what the file says, and not the preset of moco-v2
