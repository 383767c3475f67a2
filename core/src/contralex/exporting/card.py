"""The card of an exported network: what it is, how it is opened, how its figures were made. Markdown for the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex.files import read_json
from contralex.plugins.hooks import METHOD_SLOTS, SHARED_SLOTS
from contralex.recipes import yaml
from contralex.recipes.paths import local_paths
from contralex.training.feature_cache import find_run_folder

if TYPE_CHECKING:
    from contralex.exporting.formats import Written
    from contralex.exporting.original import Original


def write_card(original: Original, written: Written, name: str, transform: Mapping[str, Any]) -> str:
    """``name``: of the file or folder that the lines of Python open."""
    spec = original.spec
    parts = [
        _front_matter(original, written),
        f"# {spec.name}\n\n{_about(original)}",
        _loading(written, name),
        _images(transform),
        _method(original),
        _figures(original),
        _making(original, written),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def loading_lines(written: Written, name: str) -> str:
    return written.loading.format(path=name)


def _front_matter(original: Original, written: Written) -> str:
    tags = list(dict.fromkeys(["image-feature-extraction", written.library, "contralex", original.spec.name]))
    fields = {
        "library_name": written.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
    }
    return f"---\n{yaml.dump(fields)}---"


def _about(original: Original) -> str:
    spec, state = original.spec, original.checkpoint.state
    lines = [
        f"Features of images, by the backbone of an encoder that contralex trained as `{spec.name}` for {state.step:,} "
        f"steps of {spec.train.batch_size:,} samples, on data of kind `{spec.data.kind_name()}`.",
        f"The recipe: {spec.summary}. What this run changed of it stands in the spec below." if spec.summary else "",
        f"The method: {spec.paper}." if spec.paper else "",
    ]
    return "\n\n".join(filter(None, lines))


def _loading(written: Written, name: str) -> str:
    note = f"\n\n{written.note}" if written.note else ""
    hub = ""
    if written.library == "timm":
        hub = '\n\nOnce the folder is on the hub: `timm.create_model("hf-hub:NAME/MODEL", pretrained=True)`.'
    elif written.library == "transformers":
        hub = '\n\nOnce the folder is on the hub: `transformers.AutoModel.from_pretrained("NAME/MODEL")`.'
    return (
        f"## Opening it\n\n`pip install {' '.join(map(_quoted, written.needs.split()))}`; contralex is not needed. "
        f"`images` is a tensor (B, C, H, W) of images that were transformed as below, and `features` are (B, F).\n\n"
        f"```python\n{loading_lines(written, name)}\n```{note}{hub}"
    )


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if ">" in requirement else requirement


def _images(transform: Mapping[str, Any]) -> str:
    steps = "\n".join(f"* `{step}`" for step in transform["steps"])
    words = transform.get("words") or f"These steps make an image the input:\n\n{steps}"
    return f"## What is done to an image\n\n{words}\n\n`transform.json` says the same in numbers."


def _method(original: Original) -> str:
    method = original.spec.method
    rows = "\n".join(f"| {slot} | {getattr(method, slot).kind_name()} |" for slot in METHOD_SLOTS)
    rows += "".join(
        f"\n| look_ups.{name}.{slot} | {getattr(asked, slot).kind_name()} |"
        for name, asked in method.look_ups.items()
        for slot in METHOD_SLOTS
        if slot not in SHARED_SLOTS
    )
    cards = "\n".join(f"* {line}" for line in _plugins(original))
    return f"## How it was trained\n\n| slot | kind |\n|---|---|\n{rows}\n\n{cards}"


def _plugins(original: Original) -> Iterator[str]:
    """The distributions that the run used, with a line of each card."""
    for name, version in original.checkpoint.state.plugins.items():
        try:
            summary = metadata.metadata(name)["Summary"] or ""
        except metadata.PackageNotFoundError:
            summary = ""
        yield f"{name} {version}" + (f": {summary}" if summary else "")


def _figures(original: Original) -> str:
    """What ``results.json`` says of this checkpoint, each evaluator's figures with their protocol."""
    lines = []
    for by, found in _results(original).items():
        figures = {who: each for who, each in found.items() if isinstance(each, dict) and "top1" in each}
        if not figures:
            continue
        said = ", ".join(f"{who} {each['top1']:.2%}" for who, each in figures.items())
        protocol = next(iter(figures.values())).get("protocol") or {}
        settings = ", ".join(f"{name} {value}" for name, value in protocol.items())
        lines.append(f"* {by}, top-1: {said}. Protocol: {settings}; data of kind {original.spec.data.kind_name()}.")
    return "## Figures\n\n" + "\n".join(lines) if lines else ""


def _results(original: Original) -> dict[str, dict[str, Any]]:
    """The blocks of the run's results, where its last checkpoint is the one that is exported."""
    run = find_run_folder(original.checkpoint)
    if run is None:
        return {}
    try:
        found = read_json(run / "results.json")
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or found.get("steps") != original.checkpoint.step:
        return {}
    return {name: block for name, block in found.items() if isinstance(block, dict)}


def _making(original: Original, written: Written) -> str:
    state = original.checkpoint.state
    spec = json.loads(json.dumps(original.resolved.data))
    for *above, name in local_paths(original.spec):
        block = spec
        for key in above:
            block = block[key]
        block[name] = Path(block[name]).name  # where data lie is nobody's business
    for file in spec.get("code", []):
        file["file"] = Path(file["file"]).name
    return (
        f"## How this file was made\n\n`contralex export` {metadata.version('contralex')}, from step {state.step:,} of "
        f"a run with the spec below (digest `{original.resolved.digest[:16]}`). Before it was written, the network was "
        f"opened again and compared with the encoder on three images in float32; the largest difference of a feature "
        f"was {written.comparison.words()}.\n\n"
        f"<details><summary>The spec</summary>\n\n```yaml\n{yaml.dump(spec)}```\n\n</details>"
    )
