"""Reading recipes: YAML, layers, origins, and the sentences for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contralex.plugin import ContralexError
from contralex.recipes import yaml
from contralex.recipes.diff import diff
from contralex.recipes.layers import resolve, resolve_data, unwritten_defaults

Write = Callable[..., str]

CHILD = """\
schema: 1
name: child
extends: small.yaml
method:
  key_encoder: {kind: momentum, momentum: 0.99}
  negatives: {kind: queue, size: 128}
  matches: forward
presets:
  quick:
    train: {batch_size: 16}
"""


def refused(*args: str, **options: object) -> str:
    with pytest.raises(ContralexError) as error:
        resolve(*args, **options)  # type: ignore[arg-type]
    return str(error.value)


# YAML


def test_numbers_words_and_lines_are_yaml_1_2() -> None:
    document = yaml.read("a: 3e-2\nb: {c: on, d: 1e-4, e: no}\nf: [0->1, 0o17, .5, 1_000]\ng: ~\nh: true\n", "x.yaml")
    assert document.data == {
        "a": 0.03,
        "b": {"c": "on", "d": 1e-4, "e": "no"},
        "f": ["0->1", 15, 0.5, "1_000"],
        "g": None,
        "h": True,
    }
    assert document.lines["b", "d"] == 2
    assert document.lines["f", 1] == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: the key a stands here for the second time (first in line 1)"),
        ("a: [1\nb: 2\n", ": this is not YAML: did not find expected ',' or ']'"),
        ("a: !!python/name:os.system x\n", "a recipe has no tags such as !!python/name:os.system; it is plain data"),
        ("a: &x 1\nb: *x\n", "a recipe has no aliases (*name); write the value out"),
        ("? [1]\n: 2\n", "a key is a word, not a list or a block"),
    ],
)
def test_what_yaml_refuses(text: str, sentence: str) -> None:
    with pytest.raises(ContralexError) as error:
        yaml.read(text, "x.yaml")
    assert str(error.value).startswith("x.yaml:")
    assert str(error.value).endswith(sentence)


def test_what_is_written_is_read_back() -> None:
    data = {"a": [1e-05, 0.1, 3.0, 2], "b": [{"w": 1, "on": "1e-4"}, {}], "c": {}, "d": ["null", None, "0->1", "0x1"]}
    assert yaml.read(yaml.dump(data), "x").data == data


# Layers


def test_layers_from_the_lowest(recipe: Write) -> None:
    recipe()
    path = recipe(CHILD, "child.yaml")
    assert resolve(path).run.train.epochs == 2
    quick = resolve(path, preset="quick").run.train
    assert (quick.epochs, quick.batch_size) == (1, 16)  # the parent's preset, then the child's
    sets = ["train.epochs=7", "train.epochs=8"]
    assert resolve(path, preset="quick", sets=sets).run.train.epochs == 8


def test_what_a_recipe_says_of_itself_is_not_inherited(recipe: Write) -> None:
    recipe()
    data = resolve(recipe(CHILD, "child.yaml")).data
    assert data["name"] == "child"
    assert "summary" not in data
    nameless = recipe("schema: 1\nextends: small.yaml\n", "My Own.yaml")
    assert resolve(nameless).run.name == "my-own"


FAMILY = {
    "old.yaml": """\
schema: 1
extends: small.yaml
presets:
  quick:
    method:
      encoder: {backbone: {kind: conv, widths: [8], strides: [2]}, projector: [{width: 8}]}
      loss: {temperature: 0.3}
    train: {epochs: 3, batch_size: 16}
""",
    "middle.yaml": "schema: 1\nextends: old.yaml\ntrain: {epochs: 5}\n",
    "young.yaml": """\
schema: 1
extends: middle.yaml
method: {loss: {temperature: 0.5}}
presets:
  quick:
    train: {seed: 4}
""",
}


@pytest.fixture
def young(recipe: Write) -> str:
    """A recipe with an own preset, that extends one without, that extends one with, that extends the small one."""
    recipe()
    return [recipe(text, name) for name, text in FAMILY.items()][-1]


def test_a_file_beats_the_presets_of_what_it_extends(young: str) -> None:
    resolved = resolve(young, preset="quick")
    run = resolved.run
    assert run.method.loss.model_dump()["temperature"] == 0.5  # young's own, over the preset of old
    assert (run.train.epochs, run.train.batch_size, run.train.seed) == (5, 16, 4)  # middle's, old's preset, young's
    assert [str(origin).split("/")[-1] for origin in resolved.origins["train.epochs"]] == [
        "small.yaml, line 23",
        "preset quick of small, line 28",
        "preset quick of old, line 8",
        "middle.yaml, line 3",
    ]


def test_a_preset_undoes_nothing_of_a_file_that_extends_an_installed_recipe(recipe: Write) -> None:
    hot = "schema: 1\nextends: moco-v2\nmethod: {loss: {temperature: 0.5}}\ntrain: {epochs: 7}\n"
    changes = diff(resolve("moco-v2", preset="digits"), resolve(recipe(hot, "hot.yaml"), preset="digits"))
    assert [(change.path, change.after) for change in changes] == [
        ("method.loss.temperature", "0.5"),
        ("train.epochs", "7"),
    ]


def test_a_new_kind_drops_what_an_ancestors_preset_wrote(young: str, recipe: Write) -> None:
    tower = "{kind: image, backbone: {kind: conv, widths: [8], strides: [2]}}"
    towers = f"{{kind: towers, features: first, towers: {{one: {tower}, other: {tower}}}}}"
    text = f"schema: 1\nextends: {Path(young).name}\nmethod:\n  encoder: {towers}\n  matches: forward\n"
    encoder = resolve(recipe(text, "towers.yaml"), preset="quick").data["method"]["encoder"]
    assert encoder["kind"] == "towers"
    assert encoder.keys() == {"kind", "towers", "features", "channels"}


def test_a_field_that_is_not_of_the_kind_that_a_preset_chose(young: str, recipe: Write) -> None:
    network = "schema: 1\nextends: {}\nmethod: {{encoder: {{backbone: {{stem: small}}}}}}\n"
    path = recipe(network.format(Path(young).name), "mine.yaml")
    assert refused(path, preset="quick") == (
        "method.encoder.backbone.stem: there is no such field in 'conv', which preset quick of old chose; "
        f"there are kind, widths, strides, channels ({path}:3)"
    )


def test_null_takes_out_what_a_layer_below_says(young: str, recipe: Write) -> None:
    text = f"schema: 1\nextends: {Path(young).name}\nmethod: {{encoder: {{projector: null}}}}\n"
    path = recipe(text, "plain.yaml")
    resolved = resolve(path, preset="quick")
    assert resolved.run.method.encoder.model_dump()["projector"] == ()
    origins = [str(origin).split("/")[-1] for origin in resolved.origins["method.encoder.projector"]]
    assert origins == ["plain.yaml, line 3", "default of image"]
    assert resolve(path, preset="quick").digest == resolve(young, preset="quick", sets=[_plain("[]")]).digest
    assert resolve(path, preset="quick").digest == resolve(young, preset="quick", sets=[_plain("null")]).digest
    kept = resolve(path, sets=["eval.knn={}", "train.clip=1", "train.clip=null", "eval.knn=null"]).data
    assert (kept["eval"]["knn"], kept["train"]["clip"]) == (None, None)  # where null is a value, it is one
    gone = refused(path, sets=["method.loss=null"])
    assert gone == "method.loss: this is missing, and it has no default; add it (--set)"
    assert refused(path, sets=["method.loss.weigth=null"]).startswith("method.loss.weigth: there is no such field")
    dropped = ["method.loss={kind: cosine, temperature: null}", "method.targets=key_vector", "method.negatives=none"]
    assert resolve(path, sets=dropped).data["method"]["loss"] == {"kind": "cosine", "weight": 2.0}


def _plain(value: str) -> str:
    return f"method.encoder.projector={value}"


@pytest.mark.parametrize("name", ["moco-v3-vit", "infomin", "simclr-v2-memory", "siglip", "dino-resnet50", "byol"])
def test_a_runs_own_spec_with_the_preset_that_it_was_started_with(name: str, recipe: Write) -> None:
    """A later recipe of the chain overrules values of an earlier one's preset; so it does here."""
    begun = resolve(name, preset="digits")
    again = resolve(recipe(begun.to_yaml(), "spec.yaml"), preset="digits", presets_of_its_name=True)
    assert again.digest == begun.digest
    bare = recipe(resolve(name).to_yaml(), "spec.yaml")
    changed = resolve(bare, preset="digits", presets_of_its_name=True).run.train  # no preset, and now one: said
    assert (changed.epochs, changed.batch_size) == (begun.run.train.epochs, begun.run.train.batch_size)


def test_a_new_kind_drops_the_old_block_and_the_same_kind_merges(recipe: Write) -> None:
    path = recipe()
    assert resolve(path, sets=["method.loss={kind: info_nce, temperature: 0.2}"]).data["method"]["loss"] == {
        "kind": "info_nce",
        "temperature": 0.2,
        "weight": 1.0,
    }
    changed = ["method.negatives={kind: queue, size: 64}", "method.matches=forward"]
    assert resolve(path, sets=changed).data["method"]["negatives"] == {
        "kind": "queue",
        "size": 64,
        "placement": "replicated",
        "dtype": "float32",
    }
    regression = ["method.loss=cosine", "method.targets=key_vector", "method.negatives=none"]
    assert resolve(path, sets=regression).data["method"]["loss"] == {"kind": "cosine", "weight": 2.0}


def test_a_kind_that_is_set_comes_before_the_keys_set_beside_it(recipe: Write) -> None:
    sets = ["train.optimizer.betas=[0.9, 0.95]", "train.optimizer.lr=0.1", "train.optimizer.kind=adamw"]
    optimizer = resolve(recipe(), sets=sets).data["train"]["optimizer"]
    assert (optimizer["lr"], optimizer["betas"]) == (0.1, [0.9, 0.95])


def test_schedules_and_numbers_replace_each_other(recipe: Write) -> None:
    path = recipe()
    assert resolve(path, sets=["train.optimizer.lr=0.1"]).data["train"]["optimizer"]["lr"] == 0.1
    assert resolve(path, sets=["train.optimizer.lr.start=0.1"]).data["train"]["optimizer"]["lr"]["at"] == [1.0]
    cosine = resolve(path, sets=["train.optimizer.lr={kind: cosine, start: 1}"]).data["train"]["optimizer"]["lr"]
    assert cosine == {
        "kind": "cosine",
        "start": 1.0,
        "end": 0.0,
        "warmup_epochs": 0.0,
        "warmup_start": 0.0,
        "warmup_counts": "from_0",
        "per": "step",
        "spans": "rest",
        "counts_from": 0,
    }
    schedule = ["method.loss.temperature={kind: linear, start: 1, end: 0.1, epochs: 1}"]
    assert resolve(path, sets=schedule).data["method"]["loss"]["temperature"]["kind"] == "linear"


def test_null_takes_out_and_a_list_is_replaced_whole(recipe: Write) -> None:
    augment = "method.views.groups.crops.augment"
    data = resolve(recipe(), sets=[f"{augment}.gray=null", f"{augment}.order=[crop, flip]"]).data
    found = data["method"]["views"]["groups"]["crops"]["augment"]
    assert (found["gray"], found["order"]) == (None, ["crop", "flip"])


def test_an_item_of_a_list_can_be_set(recipe: Write) -> None:
    sets = ["method.encoder.projector.0.width=16", "method.views.groups.crops.augment.order.1=flip"]
    sets += ["method.views.groups.crops.augment.order.2=gray"]
    resolved = resolve(recipe(), sets=sets)
    assert [layer["width"] for layer in resolved.data["method"]["encoder"]["projector"]] == [16, 32]
    assert resolved.data["method"]["views"]["groups"]["crops"]["augment"]["order"] == ["crop", "flip", "gray"]
    assert [str(one) for one in resolved.origins["method.encoder.projector.0.width"]][-1] == "--set"
    assert str(resolved.origins["method.encoder.projector.1.width"][-1]).startswith("file ")
    assert str(resolved.origins["method.views.groups.crops.augment.order"][-1]) == "--set"


def test_data_is_a_kind_or_a_folder(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "cifar10").mkdir()
    assert resolve(path, data="cifar10").data["data"]["kind"] == "cifar10"
    assert resolve(path, data="./cifar10").data["data"]["kind"] == "image_folder"
    folder = resolve(path, data="pictures")
    assert (folder.data["data"]["root"], str(folder.origins["data.root"][-1])) == ("pictures", "--data")
    assert refused(path, data="cifra10") == (
        "--data cifra10: there is no such file or folder, and no data of kind 'cifra10' is installed; "
        "did you mean 'cifar10'?"
    )
    assert refused(path, data="./none") == "--data ./none: there is no such file or folder"
    assert refused(path, data=path).endswith("no kind of data that is installed reads such a file; give a folder")


@pytest.mark.parametrize(
    ("name", "of", "kind"),
    [
        ("moco-v2", "folder", "image_folder"),
        ("moco-v2", "pairs.csv", "image_captions"),  # of which it takes the images
        ("clip", "folder", "image_captions"),
        ("clip", "pairs.jsonl", "image_captions"),
        ("clip", "pairs.tar", "webdataset"),
        ("cpc-audio", "folder", "sequence_folder"),
    ],
)
def test_a_path_is_read_by_a_kind_that_gives_what_the_method_needs(
    name: str, of: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / of
    if path.suffix:
        path.touch()
    else:
        path.mkdir()
    data = resolve(name, data=str(path)).data["data"]
    assert (data["kind"], data.get("root", data.get("shards"))) == (kind, str(path))


def test_a_path_that_no_fitting_kind_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.touch()
    assert "needs sequence from data (image_captions gives" in refused("cpc-audio", data=str(path))


# Origins, digest, plugins


def test_every_leaf_knows_its_layers(recipe: Write) -> None:
    small, child = recipe(), recipe(CHILD, "child.yaml")
    origins = resolve(child, preset="quick", sets=["method.negatives.size=64"]).origins

    def of(path: str) -> list[str]:
        return [str(origin) for origin in origins[path]]

    assert of("method.negatives.size") == [f"file {child}, line 6", "--set"]
    assert of("method.negatives.kind") == [f"file {small}, line 17", f"file {child}, line 6"]
    assert of("train.epochs") == [f"file {small}, line 23", "preset quick of small, line 28"]
    assert of("train.batch_size") == [f"file {small}, line 24", "preset quick of child, line 10"]
    assert of("method.key_encoder.shuffle_bn") == ["default of momentum"]
    assert of("train.clip") == ["default of TrainSpec"]
    assert of("method.views.groups.crops.augment.flip.p") == ["default of Flip"]


def test_the_resolved_text_is_the_same_run_again(recipe: Write, tmp_path: Path) -> None:
    recipe()
    first = resolve(recipe(CHILD, "child.yaml"), preset="quick")
    again = resolve(recipe(first.to_yaml(), "spec.yaml"))
    assert (again.data, again.digest) == (first.data, first.digest)
    assert resolve_data(first.data).digest == first.digest
    assert next(iter(first.data)) == "schema"
    assert "extends" not in first.data


def test_the_digest_is_of_the_run_not_of_its_name(recipe: Write) -> None:
    path = recipe()
    digest = resolve(path).digest
    assert resolve(path, sets=["name=other", "summary=words"]).digest == digest
    assert resolve(path, sets=["train.seed=1"]).digest != digest
    first = "{count: 1, augment: {order: [crop], crop: {size: 32, scale: [0.2, 1]}}}"
    second = first.replace("32", "16")
    orders = [f"a: {first}, b: {second}", f"b: {second}, a: {first}"]
    views = [f"method.views={{kind: crops, groups: {{{order}}}}}" for order in orders]
    digests = {resolve(path, sets=[text]).digest for text in views}
    assert len(digests) == 2  # the order of groups numbers the views


def test_plugins_of_nested_kinds_and_of_recipes(recipe: Write, fake_plugin: Callable[..., Path]) -> None:
    code = """
    from pathlib import Path
    from typing import Annotated, Literal
    from contralex.plugin import Slot, Spec, hookimpl

    class Wrapped(Spec):
        kind: Literal["wrapped"] = "wrapped"
        base: Annotated[Spec, Slot("loss")]

        def requires(self):
            return self.base.requires()

    @hookimpl
    def contralex_losses():
        return [Wrapped]

    @hookimpl
    def contralex_recipes():
        return Path(__file__).parent / "recipes"
    """
    other = """
    from typing import Literal
    from contralex.plugin import Spec, hookimpl

    class Inner(Spec):
        kind: Literal["inner"] = "inner"
        strength: float = 1.0

    @hookimpl
    def contralex_losses():
        return [Inner]
    """
    fake_plugin("other", other, version="3.0")
    folder = fake_plugin("foo", code, version="2.0") / "recipes"
    folder.mkdir()
    text = Path(recipe()).read_text("utf-8").replace("name: small", "name: packed")
    (folder / "packed.yaml").write_text(text, "utf-8")
    resolved = resolve("packed", sets=["method.loss={kind: wrapped, base: {kind: inner}}"])
    assert {name: resolved.plugins[name] for name in ("foo", "other")} == {"foo": "2.0", "other": "3.0"}
    assert "contralex" in resolved.plugins
    assert str(resolved.origins["train.epochs"][-1]) == "recipe packed (foo 2.0), line 23"
    assert str(resolved.origins["method.loss.base.strength"][-1]) == "default of inner"
    mistake = refused("packed", sets=["method.loss={kind: wrapped, base: {kind: inner, strenght: 2}}"])
    assert mistake == "method.loss.base.strenght: there is no such field; did you mean strength? (--set)"
    assert set(resolve(recipe()).plugins) == {"contralex"}


# What is wrong, in one sentence


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "method.loss.temprature=1",
            "method.loss.temprature: there is no such field; did you mean temperature? (--set)",
        ),
        ("trian.epochs=1", "trian: there is no such field; did you mean train? (--set)"),
        (
            "method.loss.temperature=0",
            "method.loss.temperature: a temperature stays between 0.0001 and 1000, and here it is 0 (--set)",
        ),
        ("method.loss.temperature=warm", "method.loss.temperature: a number is expected here, not 'warm' (--set)"),
        ("train.epochs=0", "train.epochs: must be greater than 0, not 0 (--set)"),
        ("train.epochs=1.5", "train.epochs: a whole number is expected here, not 1.5 (--set)"),
        ("train.epochs=true", "train.epochs: a number is expected here, not true (--set)"),
        ("train.optimizer.lr=.inf", "train.optimizer.lr: a finite number is expected here, not inf (--set)"),
        ("train.batch_norm=1", "train.batch_norm: must be 'sync' or 'local', or must be greater than 1, not 1 (--set)"),
        ("train.precision=fp8", "train.precision: must be 'fp32', 'bf16' or 'fp16', not 'fp8' (--set)"),
        ("train.optimizer.lr.at=3", "train.optimizer.lr.at: a list is expected here, not 3 (--set)"),
        (
            "train.optimizer.lr={kind: cosin, start: 1}",
            "train.optimizer.lr: a number is expected here, or a schedule of kind cosine, linear or steps, "
            "not 'cosin' (--set)",
        ),
        (
            "train.optimizer={kind: adamw, lr: {start: 1}}",
            "train.optimizer.lr: a number is expected here, or a schedule of kind cosine, linear or steps, "
            "not a block without a `kind` (--set)",
        ),
        (
            "train.optimizer=adamw",
            "train.optimizer: a block of keys such as {kind: sgd}, {kind: adamw}, {kind: adam}, {kind: lars} is "
            "expected here, not 'adamw' (--set)",
        ),
        (
            "train.optimizer={kind: adamw}",
            "train.optimizer.lr: this is missing, and adamw needs it; add it (--set)",
        ),
        (
            "method.encoder.backbone.kind=torchvison",
            "method.encoder.backbone: no backbone of kind 'torchvison' is installed; "
            "did you mean 'torchvision'? (--set)",
        ),
        (
            "method.encoder.projector.0.widht=1",
            "method.encoder.projector.0.widht: there is no such field; did you mean width? (--set)",
        ),
        (
            "method.encoder.projector.2.width=1",
            "method.encoder.projector.2: method.encoder.projector is a list of 2 items, counted from 0, "
            "and 2 is not one of them (--set)",
        ),
        (
            "method.loss.kind=infonce",
            "method.loss: no loss of kind 'infonce' is installed; did you mean 'info_nce'? (--set)",
        ),
        ("train.epochs", "--set train.epochs: write it as path=value, such as --set train.epochs=10"),
        ("train..epochs=1", "--set train..epochs=1: a path is names with one dot between them, such as train.epochs"),
        ("train.epochs=[", "--set train.epochs=[: this is not YAML: did not find expected node content"),
        ("extends=x", "--set extends=x: extends can only stand in a file; set a value of the run"),
    ],
)
def test_a_mistake_in_set(recipe: Write, setting: str, sentence: str) -> None:
    assert refused(recipe(), sets=[setting]) == sentence


def test_a_mistake_in_a_file_names_the_line(recipe: Write) -> None:
    recipe()
    text = "schema: 1\nextends: small.yaml\nmethod:\n  loss: {temprature: 1}\n  matches: [0-1]\n"
    path = recipe(text, "mine.yaml")
    assert refused(path).splitlines() == [
        f"method.loss.temprature: there is no such field; did you mean temperature? ({path}:4)",
        f"method.matches: a match is written like 0->1 (query view -> key view), not 0-1 ({path}:5)",
    ]


def test_many_mistakes_are_cut_short(recipe: Write) -> None:
    lines = refused(recipe(), sets=[f"train.wrong{number}=1" for number in range(8)]).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 3 more"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\n", "{path}: schema is missing; add schema: 1"),
        ("schema: 2\n", "{path}:1: schema must be 1, the only version there is"),
        ("- 1\n", "{path}: a recipe is a block of keys, beginning with schema: 1"),
        ("", "{path}: a recipe is a block of keys, beginning with schema: 1"),
        ("schema: 1\nextends: [a]\n", "{path}:2: extends is the name of one recipe, or the path of one file"),
        (
            "schema: 1\npresets: {a: {name: x}}\n",
            "{path}:2: presets.a.name a preset changes method, data, train, eval, not name",
        ),
        (
            "schema: 1\nextends: x.yaml\n",
            "{path}:2: extends leads back to where it began: x -> x; take one of them out",
        ),
    ],
)
def test_a_file_that_is_no_recipe(recipe: Write, text: str, sentence: str) -> None:
    path = recipe(text, "x.yaml")
    assert refused(path) == sentence.format(path=path)


def test_a_recipe_that_is_not_there(recipe: Write, tmp_path: Path) -> None:
    assert refused(str(tmp_path)).endswith("is a folder, not a recipe; give a YAML file in it")
    assert refused("none.yaml").startswith("there is no file none.yaml; ")
    assert refused("no-such-recipe").startswith("no recipe 'no-such-recipe' is installed, and no such file exists")
    path = recipe("schema: 1\nextends: no-such-recipe\n", "x.yaml")
    assert refused(path).startswith(f"{path}:2: extends cannot be followed: no recipe 'no-such-recipe' is installed")
    small = recipe()
    assert refused(small, preset="quik") == "--preset quik: small has no preset of this name; did you mean quick?"


# Parts that do not fit


def test_a_regression_loss_with_a_queue_and_instance_targets_is_refused(
    recipe: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRALEX_PLUGINS", "contralex")  # the ways out that the core offers
    from contralex.plugins.registry import registry

    registry.cache_clear()
    sets = ["method.negatives={kind: queue, size: 64}", "method.matches=forward", "method.loss=cosine"]
    sentence = refused(recipe(), sets=sets)
    registry.cache_clear()
    assert sentence == (
        "method.loss (cosine) needs vectors from method.targets (instance gives index) and no entries from "
        "method.negatives (queue gives entries, positive and tagged entries); use method.targets of kind key_vector "
        "and method.negatives of kind none, or method.loss of kind info_nce"
    )


def test_matches_of_views_that_are_not_made(recipe: Write) -> None:
    assert refused(recipe(), sets=["method.matches=[0->2]"]) == (
        "method.matches asks for view 2, but method.views makes 2 views, numbered from 0; add a view or change matches"
    )
    assert refused(recipe(), sets=["method.views.groups.crops.count=1"]).startswith(
        "method.matches: every leaves no pair"
    )
    locals_ = "method.views.groups.locals={count: 2, key: false, like: crops, crop: {size: 20, scale: [0.2, 0.5]}}"
    assert refused("moco-v2", preset="digits", sets=[locals_]).startswith(
        "method.views makes view 2 and view 3 for queries alone, and method.matches lets it look nothing up"
    )
    resolve("moco-v2", preset="digits", sets=[locals_, "method.matches=every"])
    without = resolve("dino", sets=["method.views.groups.locals=null", "method.matches=[0->1]"])
    assert list(without.data["method"]["views"]["groups"]) == ["globals", "second"]


# Differences


def test_a_block_of_another_kind_is_one_change(recipe: Write) -> None:
    small, child = resolve(recipe()), resolve(recipe(CHILD, "child.yaml"))
    assert [str(change) for change in diff(small, child)] == [
        "method.key_encoder: shared(gradient=true) → momentum(momentum=0.99, shuffle_bn=false, init=copy)",
        "method.negatives: in_batch(views=all) → queue(size=128, placement=replicated, dtype=float32, positive=true)",
        "method.matches: every → forward",
    ]
    assert diff(small, small) == []


def test_layers_leaves_and_what_is_taken_out(recipe: Write) -> None:
    path = recipe()
    sets = [
        "method.encoder.projector=[{width: 64, bias: false, norm: batch, affine: scale, activation: relu}]",
        "method.views.groups.crops.augment.gray=null",
        "train.optimizer.lr=0.1",
        "train.optimizer.groups=[{match: norm_and_bias, weight_decay: 0}]",
        "method.views.groups.small={count: 1, augment: {order: [crop], crop: {size: 8, scale: [0.1, 1]}}}",
    ]
    changes = {
        change.path: f"{change.before} → {change.after}" for change in diff(resolve(path), resolve(path, sets=sets))
    }
    assert changes.pop("method.views.groups.small").startswith("absent → (count=1, key=true, augment=(order=[crop]")
    assert changes == {
        "method.views.groups.crops.augment.gray": "(p=0.2) → null",
        "method.encoder.projector": "[64 relu, 32] → [64 bias=false batch scale relu]",
        "train.optimizer.lr": "steps(start=0.03, factor=0.1, at=[1], warmup_epochs=0) → 0.1",
        "train.optimizer.groups": "[] → [norm_and_bias weight_decay=0]",
    }


def test_a_default_in_a_list_that_is_not_written_has_its_origin() -> None:
    origin = unwritten_defaults(resolve("simclr-v1"))["train.optimizer.groups.0.layer_decay"]
    assert [(each.layer, each.value) for each in origin] == [("default of ParamGroup", True)]
