"""Whether the files of a run's data are there, before anything is imported to read them."""

from __future__ import annotations

from collections.abc import Sequence

from contralex.errors import ContralexError, remedy
from contralex.recipes.documents import chain
from contralex.recipes.layers import Resolved, resolve


def check_present(resolved: Resolved, recipe: str, command: Sequence[str], *, allow_code: bool = False) -> None:
    """Refuses a run whose data have no files, with the ways out. ``command``: what was typed, up to its options."""
    data = resolved.run.data
    absent = data.absent()
    if absent is None:
        return
    field, where = absent
    ways = [("--data", "FOLDER")]
    preset = _preset_that_needs_no_files(recipe, allow_code)
    if preset is not None:
        ways.append(("--preset", preset))
    ways.append(("--set", f"data.{field}=FOLDER"))
    download = type(data).model_fields.get("download")
    if download is not None and download.annotation is bool:
        ways.append(("--set", "data.download=true"))
    mistake = ContralexError(
        f"{recipe} trains on data of kind {data.kind_name()}, whose files are not in {where}. Give data of your own"
        + (f", take the preset {preset}, which needs no files" if preset is not None else "")
        + ", or say where its files are:"
        + "".join(remedy(*command, *way) for way in ways)
    )
    mistake.on_every_process = True
    raise mistake


def _preset_that_needs_no_files(recipe: str, allow_code: bool) -> str | None:
    names = dict.fromkeys(name for each in chain(recipe) for name in each.presets)
    for name in names:
        try:
            if resolve(recipe, preset=name, allow_code=allow_code).run.data.absent() is None:
                return name
        except ContralexError:  # a preset that is wrong is no way out
            continue
    return None
