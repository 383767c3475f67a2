"""When kernels are used; and all checks of them, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from contralex.lookup import streaming, triton_sums
from contralex.lookup.streaming import Hidden
from tests.packages import ROOT

CHECKS = Path(__file__).with_name("triton_checks.py")


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", str(CHECKS), "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this device could run kernels."""
    monkeypatch.setattr(triton_sums, "_is_able", lambda device: device not in triton_sums._failed)
    monkeypatch.setattr(triton_sums, "_failed", set())
    monkeypatch.setattr(triton_sums, "LEAST_SCORES", 200)


def units(count: int, dim: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim), dim=1).to(dtype)


@pytest.mark.parametrize(
    ("queries", "entries", "hides", "uses"),
    [
        (units(10), units(20), 2, True),
        (units(10), units(20).bfloat16(), 0, True),
        (units(10, 128), units(20, 128), 0, True),
        (units(10), units(19), 0, False),  # too few scores
        (units(10), units(20), 3, False),
        (units(10, 129), units(20, 129), 0, False),
        (units(10).double(), units(20).double(), 0, False),
        (units(10), units(20).double(), 0, False),
        (units(0), units(20), 0, False),
    ],
)
def test_kernels_are_used_for_what_they_can_do(
    able: None, queries: Tensor, entries: Tensor, hides: int, uses: bool
) -> None:
    hidden = tuple(torch.zeros(len(queries), dtype=torch.long) for _ in range(hides))
    with mock.patch.object(triton_sums, "_sum_tiles", return_value="sums") as launched:
        found = triton_sums.sum_tiles(queries, entries, hidden)
    assert (found == "sums") == launched.called == uses


def test_a_mask_is_left_to_torch(able: None) -> None:
    with mock.patch.object(triton_sums, "_sum_tiles") as launched:
        index = torch.zeros(10, dtype=torch.long)
        streaming.sum_others(units(10), units(20), index, Hidden((), torch.ones(10, 20, dtype=torch.bool)))
    assert not launched.called


def test_no_kernels_on_the_cpu_and_where_they_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_sums, "LEAST_SCORES", 1)
    assert triton_sums.sum_tiles(units(10), units(20), ()) is None
    monkeypatch.setattr(triton_sums, "FORCED", False)
    monkeypatch.setattr(triton_sums, "_is_able", lambda device: True)
    assert triton_sums.sum_tiles(units(10), units(20), ()) is None


def test_torch_goes_on_where_a_kernel_cannot_be_compiled(able: None) -> None:
    queries, entries, index = units(10).requires_grad_(), units(20).requires_grad_(), torch.arange(10)
    plain = streaming.sum_others(queries.double(), entries.double(), index, Hidden())
    failure = RuntimeError("in gcc:\nno C compiler was found")
    with (
        mock.patch.object(triton_sums, "_sum_tiles", side_effect=failure) as launched,
        pytest.warns(UserWarning, match=r"^Triton does not work here, .* by torch: no C compiler was found$"),
    ):
        found = streaming.sum_others(queries, entries, index, Hidden())
    assert torch.allclose(found.sum.double(), plain.sum)
    with mock.patch.object(triton_sums, "_sum_tiles", side_effect=failure) as launched:
        streaming.sum_others(queries, entries, index, Hidden())
    assert not launched.called  # nor is it tried again


def test_torch_makes_the_gradient_where_only_its_kernel_fails(able: None) -> None:
    queries, entries, index = units(10).requires_grad_(), units(20).requires_grad_(), torch.arange(10)
    with mock.patch.object(triton_sums, "FORCED", False):
        plain = streaming.log_sum_exp(queries, entries, None, Hidden())
    wanted = torch.autograd.grad(plain.sum(), [queries, entries])
    scores = (queries @ entries.T).detach()
    top = scores.amax(dim=1)
    sums = triton_sums.Sums(top, (scores - top[:, None]).exp().sum(dim=1), top[:0], index[:0], None)
    with mock.patch.object(triton_sums, "_sum_tiles", return_value=sums):
        found = streaming.log_sum_exp(queries, entries, None, Hidden())
    with (
        mock.patch.object(triton_sums, "_weigh_side", side_effect=RuntimeError("out of resource: shared memory")),
        pytest.warns(UserWarning, match="shared memory$"),
    ):
        gradients = torch.autograd.grad(found.sum(), [queries, entries])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(gradients, wanted, strict=True))


POINTERS = {"picked": "*i64", "hidden": "*i64", "best_out": "*i32"}
COUNTS = ("query_count", "entry_count", "outer_count", "inner_count", "query_stride", "entry_stride")
COUNTS += ("outer_stride", "inner_stride", "chunk")


@pytest.mark.parametrize("dim", triton_sums.BLOCKS)
@pytest.mark.parametrize("name", ["sum_tiles", "weigh_tiles"])
def test_kernels_compile_for_an_h100_and_fit_it(
    name: str, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed for this."""
    pytest.importorskip("triton", minversion="3.6")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from contralex.lookup import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, blocks = getattr(triton_kernels, name), triton_sums.BLOCKS[dim]
    settings = {"DIM": dim, "WIDTH": dim, "HIDDEN": 2, "PICKS": True, "PRECISION": triton_sums.PRECISION}
    if name == "sum_tiles":
        settings |= {"ROWS": blocks.outer, "COLUMNS": blocks.inner, "BEST": True, "MEAN": True}
    else:
        settings |= {"OUTER": blocks.outer, "INNER": blocks.inner, "TURNED": True}
    types = dict.fromkeys(settings, "constexpr") | POINTERS | dict.fromkeys(COUNTS, "i32")
    signature = {argument: types.get(argument, "*fp32") for argument in kernel.arg_names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, type in enumerate(signature.values()) if type != "constexpr"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=settings, attrs=aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.metadata.shared <= 227 * 1024
    assert "wgmma" in compiled.asm["ptx"]  # tensor cores


def test_triton_is_not_imported_before_a_kernel_runs() -> None:
    code = "import sys, contralex.lookup.streaming; assert 'contralex.lookup.triton_kernels' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
