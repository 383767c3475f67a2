"""Private names of other libraries are used in one module, which imports torch only when it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

import contralex
from contralex import compat

PACKAGE = Path(contralex.__file__).parent
SOURCES = [path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts and path.name != "compat.py"]
PUBLIC = {"_exit"}  # of os, and documented


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """The private names that a module defines: functions, classes, variables, and attributes of self."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return {name for name in names if is_private(name)}


def used_names(tree: ast.AST) -> set[str]:
    """The private names that a module imports from elsewhere, or reads from or writes to another object than self."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in {"self", "cls"}:
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    return {name for name in names if is_private(name)}


def test_no_other_module_uses_a_private_name_of_another_library() -> None:
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    own = set().union(*map(own_names, trees.values())) | PUBLIC
    foreign = {str(path.relative_to(PACKAGE)): used_names(tree) - own for path, tree in trees.items()}
    assert {path: names for path, names in foreign.items() if names} == {}


def test_the_search_finds_a_private_name_of_another_library() -> None:
    tree = ast.parse("import torch\nfrom torch.nn import _x\nself._mine = 1\nmodel._theirs = torch._foreach_mul_")
    assert used_names(tree) - own_names(tree) == {"_x", "_theirs", "_foreach_mul_"}


def test_it_needs_no_torch_before_it_is_asked_for_something_of_it() -> None:
    seen = "print('torch' in sys.modules)"
    code = f"import sys, contralex.compat; {seen}; contralex.compat.BatchNorm; {seen}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert not hasattr(compat, "GroupNorm")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)])
def test_batch_norms_of_all_dimensions_are_known(norm: nn.Module) -> None:
    assert isinstance(norm, compat.BatchNorm) and not isinstance(nn.GroupNorm(1, 2), compat.BatchNorm)


def test_lists_of_tensors_are_computed_as_one_by_one() -> None:
    def tensors() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(shape, generator=generator) for shape in ((2, 3), (4,))]

    ends, moved, scaled, copied = [1 - each for each in tensors()], tensors(), tensors(), tensors()
    compat.lerp_each(moved, ends, 0.25)
    compat.multiply_each(scaled, [torch.tensor(2.0), torch.tensor(-1.0)])
    compat.copy_each(copied, ends)
    torch.testing.assert_close(moved, [0.75 * a + 0.25 * b for a, b in zip(tensors(), ends, strict=True)])
    torch.testing.assert_close(scaled, [a * factor for a, factor in zip(tensors(), (2, -1), strict=True)])
    torch.testing.assert_close(copied, ends)
    torch.testing.assert_close(compat.norm_each(ends), [each.square().sum().sqrt() for each in ends])


def test_a_record_is_found_where_its_metadata_lie() -> None:
    folder = compat.record_folder(metadata.distribution("torch"))
    assert folder.name.endswith(".dist-info") and (folder / "METADATA").is_file()
