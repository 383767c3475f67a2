"""What every spec is: a frozen pydantic model that refuses what it does not know, and can be built.

A *slot* is an open union. Its member is chosen by ``kind`` when the spec is validated, among the kinds
that are installed at that moment, so a plugin that arrives later needs no rebuild of anything.
"""

# Annotations are objects here, and not texts: pydantic reads those of the class variables for each kind anew, and would
# compile 1,000 texts whenever contralex starts.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import PydanticCustomError, core_schema

from contralex.lookup.names import IMAGE
from contralex.plugins import building, table
from contralex.plugins.architecture import Architecture, Library
from contralex.plugins.building import BuildContext
from contralex.plugins.company import ViewCompany
from contralex.plugins.docstrings import describe

SLOT = "x-slot"  # in a JSON Schema, stands where a slot is until the kinds are known


@dataclass(frozen=True)
class Delay:
    """A stretch of a run, from its beginning, in which something is not yet as it is meant to be.

    ``field``: the number within the spec that says how long, in ``epochs``. ``meanwhile``: a clause that says what
    holds until then. ``most``: the fraction of a run above which that is warned of.
    """

    field: str
    epochs: float
    meanwhile: str
    most: float = 0.1


@dataclass(frozen=True)
class Least:
    """How many there must be: ``count`` samples in a ``batch`` over all processes, or in the whole batches of an
    ``epoch``. ``why``: a clause. ``field``: the number within the spec that may be lowered instead, if there is one."""

    of: Literal["batch", "epoch"]
    count: int
    why: str
    field: str = ""


class Spec(BaseModel):
    """A block of a recipe. Frozen data: no dotted import path, nothing that is executed.

    ``builds`` names the part, ``module:Name``, which :meth:`build` makes; a module that begins with a dot is relative
    to the spec's package, and without one the part is in the spec's own file.
    ``needs`` and ``gives`` say what a part takes from, and offers to, the other slots; they are how a
    combination that cannot work is refused when the spec is read (see :mod:`contralex.recipes.compatibility`).
    ``learns``: whether the optimiser moves what the part holds (prototypes, a learnt temperature).
    ``key_weights``: of a key encoder, whose weights it has: the query encoder's own (``shared``), those of a copy that
    follows it after each step (``following``), some that never change (``fixed``), or ``other``.
    ``added``: fields that a kind has had only since a release, which are no part of a run's digest where they have
    their defaults, so that runs keep theirs.
    ``source`` names the paper and the equation that the part implements. ``example`` holds the values of a tiny
    one, where the defaults do not make it: it is what the conformance kit builds.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        defer_build=True,  # its validator is made when it is first used: a command uses few of the kinds that there are
    )

    builds: ClassVar[str] = ""
    gives: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[Mapping[str, frozenset[str]]] = {}
    learns: ClassVar[bool] = False
    key_weights: ClassVar[Literal["shared", "following", "fixed", "other"]] = "other"
    source: ClassVar[str] = ""
    added: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[Mapping[str, Any]] = {}

    # What this very block gives and needs, where that depends on its values.
    def offers(self) -> frozenset[str]:
        return self.gives

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        """Pairs of another slot and the features of which at least one must be given there; all must hold."""
        return list(self.needs.items())

    def delays(self) -> Sequence[Delay]:
        """What this very block counts in epochs from the beginning of the run, see :mod:`contralex.recipes.delays`."""
        return ()

    def queued(self) -> tuple[str, int] | None:
        """Of negatives that hold the newest keys, whosesoever: the field that says how many, and how many."""
        return None

    def borrowed_from(self) -> str | None:
        """Of negatives that are those of another look-up of the method: its name."""
        return None

    def follows(self) -> tuple[str, Any] | None:
        """Of a key encoder that follows the query encoder: the field that holds the weight of its own past, and its
        value, a number from 0 to 1 or a schedule."""
        return None

    def key_flags(self) -> list[bool] | None:
        """Of views: for each, whether it may be a key. None where the spec alone does not say."""
        return None

    def augments(self) -> "Sequence[Spec] | None":
        """Of views: the augmentation of each, which has a ``crop``. None where they are not such views."""
        return None

    def image_shape(self) -> tuple[int, int | None]:
        """Of a backbone: the channels of the images that it takes, and the pixels of a side; None where any will do."""
        return 3, None

    def output_names(self) -> Sequence[str]:
        """Of an encoder: the names of its :attr:`~contralex.plugin.Encoder.outputs`, the main one first."""
        return (IMAGE,)

    def offers_of(self, output: str) -> frozenset[str]:
        """Of an encoder: what it gives to the look-ups of one of its outputs."""
        return self.offers()

    def reads_outputs(self) -> Sequence[str]:
        """Of negatives, targets and losses: the outputs of the encoder that they read beside their look-up's own."""
        return ()

    def kept_backbone(self) -> "Spec | None":
        """Of an encoder: the spec of its :attr:`~contralex.plugin.Encoder.backbone`, which is the field of that name;
        None where there is none."""
        found = dict(self).get("backbone")
        return found if isinstance(found, Spec) else None

    def architecture(self, library: Library) -> Architecture | str:
        """Of a backbone: the model of another library that computes the same from the same tensors; or, where there is
        none, the reason as a clause, or nothing."""
        return ""

    def without_published_weights(self) -> "Spec":
        """The same block, and those within it, beginning with random weights: for a network whose weights are read from
        a checkpoint next."""
        inner = {name: value.without_published_weights() for name, value in self if isinstance(value, Spec)}
        changed = {name: value for name, value in inner.items() if value is not getattr(self, name)}
        return self.model_copy(update=changed) if changed else self

    def published_pixels(self) -> "tuple[tuple[float, ...], tuple[float, ...]] | None":
        """Of a backbone that begins with published weights: the mean and the standard deviation of each of the three
        channels, by which pixels in [0, 1] were normalised when those were trained. None where nobody says."""
        return None

    def explained_as(self) -> list[str] | None:
        """The lines that `contralex explain` shows of it, where not one for each field."""
        return None

    def explained_company(self) -> Sequence[ViewCompany]:
        """Of views: what they have beside their pixels, which `contralex explain` says and draws."""
        return ()

    def explained_sides(self) -> tuple[str, str] | None:
        """Of an encoder of views with company: what its queries are made of, and what its keys, for `contralex
        explain`; None where both are made of all that a view shows."""
        return None

    def read_from(self) -> str:
        """Of data: the file, folder or name that they are read from, for messages; or nothing."""
        return ""

    def whole_data(self) -> "Spec":
        """Of data that are some samples of other data: those."""
        return self

    def with_logits(self, classes: int, from_layer: int) -> "tuple[Spec, str] | None":
        """Of an encoder: itself as a classifier, which ends in logits after ``from_layer`` layers of its head, and the
        name of the new layer among its modules. None where it cannot be made one."""
        return None

    def absent(self) -> tuple[str, str] | None:
        """Of data whose files are not there: the field that says where they are, and its value. Told at a glance."""
        return None

    def least(self, offers: Mapping[str, frozenset[str]]) -> Sequence[Least]:
        """The numbers of samples without which this very block cannot work. ``offers``: what each slot gives."""
        return ()

    @classmethod
    def tiny(cls, folder: str) -> "Spec | None":
        """Of data: a spec that reads a few samples, which it has written to ``folder``, for the conformance kit. None
        where its ``example`` or its defaults do."""
        return None

    @classmethod
    def of_path(cls, path: Path) -> Mapping[str, Any] | None:
        """Of data: the values with which it reads the file or folder of ``--data PATH``; None where that is not for
        it."""
        return None

    def build(self, context: BuildContext | None = None) -> Any:
        """The part that ``builds`` names, from the fields and from what its signature asks of the build context."""
        return building.build(self, context)

    @classmethod
    def kind_name(cls) -> str:
        """The literal value of the class's ``kind`` field: the name it has in YAML."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        """With what the docstring says of each field. Called only where a schema is asked for."""
        made = handler(schema)
        describe(cls, handler.resolve_ref_schema(made))
        return made


def leave_out_defaults(*names: str) -> Any:
    """A serializer for the body of a spec, by which these fields are not written where they have their defaults: a
    recipe that does not use them is written as before there were such fields."""

    def write(self: Spec, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        defaults = {name: type(self).model_fields[name].default for name in names}
        return {name: value for name, value in written.items() if name not in defaults or value != defaults[name]}

    return model_serializer(mode="wrap")(write)


class Slot:
    """Marks a field as an open union: ``loss: Annotated[Spec, Slot("loss")]``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.model_dump(mode="json")),
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        """Which slot it is. Its kinds are only known when all plugins are: see ``contralex.recipes.json_schema``."""
        return {SLOT: self.name, "type": ["object", "string"]}

    def validate(self, value: Any) -> "Spec":
        known = table.installed()
        if isinstance(value, Spec):
            if known.find(self.name, value.kind_name()) is not type(value):
                raise PydanticCustomError(
                    "wrong_slot", "{cls} is not a kind of {slot}", {"cls": type(value).__name__, "slot": self.name}
                )
            return value
        if isinstance(value, str):
            value = {"kind": value}  # `loss: cosine` is short for `loss: {kind: cosine}`
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise PydanticCustomError(
                "no_kind",
                "a block with a `kind` is expected here; the kinds of {slot} that are installed are {kinds}",
                {"slot": self.name, "kinds": ", ".join(known.kinds(self.name))},
            )
        found = known.find(self.name, value["kind"])
        if found is None:
            raise PydanticCustomError("unknown_kind", "{hint}", {"hint": known.hint(self.name, value["kind"])})
        made: Spec = found.model_validate(value)
        return made
