"""What the folders below a data set's root are: splits, classes, wrappers around them, or nothing of the kind.

One walk lists the files. All is then decided by the names of folders, never by what the files hold.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from contralex.data.base import printable
from contralex.data.paths import Paths
from contralex.data.texts import Texts
from contralex.errors import ContralexError, remedy

Role = Literal["train", "val", "test"]
Labels = Literal["auto", "folders", "none"]
_Parts = tuple[str, ...]  # a folder's names below the root

# What systems leave behind. Names that begin with a dot are passed over as well: .git, and ._a.jpg, which macOS puts
# beside a.jpg in an archive.
_JUNK = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found"}
    | {"system volume information"}
)
# train, Training, train2017, train_images, seg_train, trainset; not trains, retraining or testosterone
_ROLE = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev|eval(?:uation)?)|(?P<test>test(?:ing)?))"
    r"(?:set|(?![a-z]))"
)
_PLAIN = frozenset({"", "image", "images", "img", "imgs", "data", "dataset", "split", "photos", "pictures"})
_FEW = 5  # images beside the class folders are left out where the folders hold so many times more


def role_of(name: str) -> tuple[Role, str] | None:
    """Which split a name stands for, as tools export them, and the rest of the name, without digits."""
    found = list(_ROLE.finditer(name.lower()))
    if len(found) != 1:  # train-test-split is none of the two
        return None
    match = found[0]
    rest = name.lower()[: match.start()] + name.lower()[match.end() :]
    role: Role = "train" if match["train"] else "val" if match["val"] else "test"
    return role, re.sub(r"[\W\d_]+", "", rest)


def roles_among(names: Sequence[str]) -> dict[str, tuple[Role, str]]:
    """Those of some names that stand for splits. One with a word of its own counts where another split has the same
    word: seg_train beside seg_test; train_station beside airport is no split."""
    found = {name: role for name in names if (role := role_of(name))}
    rests = Counter(rest for _, rest in {*found.values()})
    return {name: (role, rest) for name, (role, rest) in found.items() if rest in _PLAIN or rests[rest] > 1}


@dataclass
class Listing:
    """The files below a folder. ``files``: names by folder, sorted; ``others``: how many of each extension in
    ``counted``; ``seen``: every folder; ``again``: folders that are another one by a link, which are read once;
    ``closed``: folders that cannot be opened, with the reason."""

    root: Path
    files: dict[_Parts, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    seen: set[_Parts] = field(default_factory=set)
    again: dict[_Parts, _Parts] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)


def walk(root: Path, extensions: Collection[str], counted: Collection[str] = ()) -> Listing:
    """Every file below ``root`` with one of the extensions; links are followed, each folder once."""
    walker = _Walker(root, extensions, counted)
    walker.visit(os.fspath(root), os.path.realpath(root), ())
    return walker.listing


class _Walker:
    """Lists folders without asking the system about a single file, and does per file what must be done and no more: a
    data set may have millions."""

    def __init__(self, root: Path, extensions: Collection[str], counted: Collection[str]) -> None:
        self.listing = Listing(root)
        self._extensions, self._counted = extensions, counted
        self._visited: dict[str, _Parts] = {}  # by their real paths

    def visit(self, folder: str, real: str, parts: _Parts) -> None:
        if real in self._visited:  # a link that leads back up, or to a sibling
            self.listing.again[parts] = self._visited[real]
            return
        try:
            below, names = _scan(folder)
        except OSError as error:
            self.listing.closed[printable(error.filename)] = error.strerror or type(error).__name__
            return
        self._visited[real] = parts
        self.listing.seen.add(parts)
        if chosen := self._choose(names):
            self.listing.files[parts] = sorted(chosen)
        for name, is_link in sorted(below):
            if name.lower() not in _JUNK:
                path = os.path.join(folder, name)
                self.visit(path, os.path.realpath(path) if is_link else os.path.join(real, name), (*parts, name))

    def _choose(self, names: list[str]) -> list[str]:
        """Those with one of the extensions; the others that are counted are counted."""
        # Without a dot, the last letter, which is no extension.
        ends = [name[name.rfind(".") :] for name in names]
        chosen: set[str] = set()
        for end, count in Counter(ends).items():
            if end.lower() in self._extensions:
                chosen.add(end)
            if end.lower() in self._counted:
                self.listing.others[end.lower()] += count
        return [name for name, end in zip(names, ends, strict=True) if end in chosen]


def _scan(folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
    """The folders in a folder, each with whether it is a link, and the names of its files; no hidden ones."""
    below, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder:
                below.append((name, entry.is_symlink()))
            else:
                names.append(name)
    return below, names


@dataclass
class Part:
    """A split's files, sorted by path. ``folder``: below it are the class folders, where there are ``classes``;
    ``labels``: of each file the index of its class."""

    folder: Path
    paths: Paths
    classes: list[str] | None
    labels: list[int] | None
    origin: str


@dataclass
class Layout:
    """``test`` is None where the layout has no split to evaluate on. ``notes``: what else was decided, and why."""

    train: Part
    test: Part | None
    notes: list[str]


def arrange(listing: Listing, labels: Labels) -> Layout:
    """Find the splits and classes of a listing that has files."""
    return _Arranger(listing, labels).layout()


class _Arranger:
    def __init__(self, listing: Listing, labels: Labels) -> None:
        self.listing = listing
        self.labels = labels
        self.origin = ""
        self.notes = [f"{path} cannot be opened ({reason})" for path, reason in listing.closed.items()]
        self.children: dict[_Parts, set[str]] = defaultdict(set)  # folders with files at any depth
        self.counts: Counter[_Parts] = Counter()  # files at any depth
        for parts, names in listing.files.items():
            for depth in range(len(parts) + 1):
                self.counts[parts[:depth]] += len(names)
                if depth < len(parts):
                    self.children[parts[:depth]].add(parts[depth])

    def layout(self) -> Layout:
        at: _Parts = ()
        while (inner := self.splits(at) or self.inner(at)) is not None:
            if isinstance(inner, Layout):
                return inner
            at = inner
        if self.labels != "none":
            self.notes += [f"folder {printable(name)} is empty" for name in self.empty(at)]
        return Layout(self.part(at, self.classes(at), self.origin), None, self.notes)

    # Splits

    def splits(self, at: _Parts) -> Layout | _Parts | None:
        """The splits among the folders in ``at``; or the one to train on, where there is no other; or None."""
        self.check_links(at)
        folders = sorted(self.children[at])
        roles = roles_among(folders)
        training = [name for name, (role, _) in roles.items() if role == "train"]
        if not training:
            self.check_without_training(at, roles)
            return None
        if len(training) > 1:
            self.check_many(at, training)
            return None
        train = (*at, training[0])
        # train_images belongs to test_images, and not to test_masks.
        judged = [name for name, (role, rest) in roles.items() if role != "train" and rest == roles[training[0]][1]]
        judged.sort(key=lambda name: roles[name][0] != "val")  # val before test
        unused = [name for name in folders if name not in (training[0], *judged)]
        if not judged and (not self.has_few_loose(at) or (unused and not self.is_split(train, unused))):
            return None
        self.note_loose(at, "the splits")
        self.notes += [f"folder {printable(name)} is empty" for name in self.empty(at)]
        if judged:
            return self.divided(train, [(*at, name) for name in judged], unused)
        self.leave_out(at, unused)
        self.origin = f"folder {printable(training[0])}"
        return train

    def is_split(self, train: _Parts, beside: Sequence[str]) -> bool:
        """Whether a folder called ``train``, beside others that have no name of a split, is no class."""
        at, inside = train[:-1], self.children[train]
        if self.labels != "auto":
            return False
        if any(len(inside & self.children[(*at, name)]) > 1 for name in beside):
            return True  # the others are splits with names of their own
        if not inside and len(beside) > 1:  # train, car and bus
            return False
        raise ContralexError(
            f"{self.name(at)} has a folder {printable(train[-1])} beside {_listed(beside)}, so that it may be the "
            "training split or a class. To train on it alone, or, if all are classes, on all:"
            + remedy("--set", f"data.root={self.name(train)}")
            + remedy("--set", "data.labels=folders")
        )

    def divided(self, train: _Parts, judged: Sequence[_Parts], unused: Sequence[str]) -> Layout:
        inner = self.innermost(train)
        classes = self.classes(inner)
        trained = self.part(inner, classes, f"folder {printable(train[-1])}")
        test = None
        for folder in judged:
            name = printable(folder[-1])
            if test is not None:
                unused = [*unused, folder[-1]]
                continue
            below = self.innermost(folder, classes or ())
            found = self.classes(below) if classes is None else self.known_classes(below, classes, train)
            if classes is None or found is not None:
                test = self.part(below, found, f"folder {name}")
            else:
                self.notes.append(f"folder {name} is left out, because it does not have the class folders")
        self.leave_out(train[:-1], unused)
        return Layout(trained, test, self.notes)

    def check_many(self, at: _Parts, training: Sequence[str]) -> None:
        if self.labels == "auto":
            raise ContralexError(
                f"{self.name(at)} has the folders {_listed(training)}, of which each may be the training split. To "
                f"train on one of them:{remedy('--set', f'data.root={self.name((*at, training[0]))}')}"
            )

    def check_without_training(self, at: _Parts, roles: Collection[str]) -> None:
        empty = [name for name in self.empty(at) if any(role == "train" for role, _ in roles_among([name]).values())]
        if empty and roles:
            raise ContralexError(f"{self.name((*at, empty[0]))} is empty; put the images to train on there.")
        if self.labels == "auto" and len(roles) > 1 and self.children[at] == set(roles):
            raise ContralexError(
                f"{self.name(at)} has the folders {_listed(roles)}, and none to train on, such as train. To train on "
                f"one of them:{remedy('--set', f'data.root={self.name((*at, min(roles)))}')}"
            )

    def check_links(self, at: _Parts) -> None:
        for parts, first in self.listing.again.items():
            if parts[:-1] == at and first[:-1] == at and first and role_of(parts[-1]) and role_of(first[-1]):
                raise ContralexError(
                    f"{self.name(parts)} and {self.name(first)} are the same folder by a link, so that the images to "
                    "evaluate on would be trained on; remove the link."
                )

    def empty(self, at: _Parts) -> list[str]:
        """The folders in ``at`` without a file, whose names are a split's."""
        inside = sorted(parts[-1] for parts in self.listing.seen if parts and parts[:-1] == at)
        return [name for name in inside if name not in self.children[at] and role_of(name)]

    def leave_out(self, at: _Parts, names: Sequence[str]) -> None:
        for name in names:
            self.notes.append(f"folder {printable(name)} ({self.counts[(*at, name)]:,}) is left out")

    # Classes

    def inner(self, at: _Parts, known: Collection[str] = ()) -> _Parts | None:
        """The one folder in ``at`` that holds everything, where there are folders in it: ``images`` of images/cat."""
        names = self.children[at]
        if len(names) != 1 or not self.has_few_loose(at):
            return None
        (name,) = names
        if not self.children[(*at, name)] or name in known:
            return None
        self.note_loose(at, f"folder {printable(name)}")
        return (*at, name)

    def innermost(self, at: _Parts, known: Collection[str] = ()) -> _Parts:
        while (inner := self.inner(at, known)) is not None:
            at = inner
        return at

    def classes(self, at: _Parts) -> list[str] | None:
        """The folders in ``at``, where they are the classes."""
        found = sorted(self.children[at])
        if self.labels == "none":
            return None
        if self.labels == "folders":
            self.check_loose(at)
            return found
        if len(found) < 2 or self.repeated(at, found):  # one folder with everything in it sorts nothing
            return None
        if not self.has_few_loose(at):
            loose = self.listing.files[at]
            self.notes.append(f"{len(loose):,} files lie beside the folders, so those are not taken for classes")
            return None
        self.note_loose(at, "the class folders")
        return found

    def known_classes(self, at: _Parts, known: list[str], train: _Parts) -> list[str] | None:
        """``known``, the classes of the folder ``train``, where ``at`` has folders of some of them."""
        found = self.children[at]
        if self.labels == "folders":
            self.check_loose(at)
        if not found & set(known) or not self.has_few_loose(at):
            return None
        if strange := sorted(found - set(known)):
            raise ContralexError(
                f"{self.name(at)} has a folder {printable(strange[0])}, and there is no such class in "
                f"{self.name(train)}. Give both the same class folders, or train without labels:"
                + remedy("--set", "data.labels=none")
            )
        self.note_loose(at, "the class folders")
        return known

    def repeated(self, at: _Parts, names: Sequence[str]) -> bool:
        """Whether folders hold folders of the same names, as splits do, or years that hold months."""
        holders = Counter(inside for name in names for inside in self.children[(*at, name)])
        shared = {inside for inside, count in holders.items() if count > 1}
        # One name is no sign: n01443537/images is a wrapper.
        suspects = [name for name in names if len(self.children[(*at, name)] & shared) > 1]
        for one, other in combinations(suspects, 2):
            same = self.children[(*at, one)] & self.children[(*at, other)]
            if len(same) < 2:
                continue
            if len({role for role, _ in roles_among(sorted(same)).values()}) > 1:
                raise ContralexError(
                    f"{self.name((*at, one))} has the folders {_listed(same)}, and so has {printable(other)} beside "
                    f"it. Splits are read as folders of {self.name(at)} with the class folders in them. To train on all"
                    f" images, without labels:{remedy('--set', 'data.labels=none')}"
                )
            self.notes.append(
                f"{printable(one)} and {printable(other)} both have folders {_listed(same)}, so they are not taken for "
                f"classes; if they are:{remedy('--set', 'data.labels=folders')}"
            )
            return True
        return False

    # Images beside the folders that matter

    def has_few_loose(self, at: _Parts) -> bool:
        """Whether at most a few images lie directly in ``at``, which can be left out for what its folders say."""
        loose = len(self.listing.files.get(at, ()))
        return not loose or (self.labels != "none" and loose <= max(1, (self.counts[at] - loose) // _FEW))

    def note_loose(self, at: _Parts, beside: str) -> None:
        loose = self.listing.files.get(at, [])
        if len(loose) == 1:
            self.notes.append(f"{printable(loose[0])} lies beside {beside} and is left out")
        elif loose:
            self.notes.append(f"{len(loose):,}, such as {printable(loose[0])}, lie beside {beside} and are left out")

    def check_loose(self, at: _Parts) -> None:
        if loose := self.listing.files.get(at):
            raise ContralexError(
                f"data.labels is folders, but {self.name((*at, loose[0]))} lies directly in {self.name(at)}; put each "
                f"file in the folder of its class, or train without labels:{remedy('--set', 'data.labels=none')}"
            )

    # Parts

    def part(self, at: _Parts, classes: list[str] | None, origin: str = "") -> Part:
        names = Texts()
        labels: list[int] = []
        number = {name: label for label, name in enumerate(classes or ())}
        for parts, some in self.sorted_runs(at):
            if classes is not None:
                if not parts:  # they lie beside the class folders
                    continue
                labels += [number[parts[0]]] * len(some)
            before = "".join(part + os.sep for part in parts)
            names.extend([before + name for name in some])
        root = self.listing.root.joinpath(*at)
        return Part(root, Paths(root, names), classes, labels if classes is not None else None, origin)

    def sorted_runs(self, at: _Parts) -> Iterator[tuple[_Parts, list[str]]]:
        """The files at any depth below ``at``, sorted by path: folders below ``at``, and names in each that follow one
        another. A folder's name stands among those of the files beside it."""
        files = self.listing.files.get(at, [])
        start = 0
        for folder in sorted(self.children.get(at, ())):
            stop = bisect_left(files, folder)
            yield (), files[start:stop]
            start = stop
            for parts, names in self.sorted_runs((*at, folder)):
                yield (folder, *parts), names
        yield (), files[start:]

    def name(self, parts: _Parts) -> str:
        return printable(self.listing.root.joinpath(*parts))


def _listed(names: Collection[str]) -> str:
    return ", ".join(_shortened([printable(name) for name in sorted(names)]))


def _shortened(names: list[str]) -> Iterator[str]:
    yield from names[:5]
    if len(names) > 5:
        yield "..."
