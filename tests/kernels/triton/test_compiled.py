"""Each kernel is compiled down to machine code of sm_90 as it would be launched, on a machine without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton", minversion="3.4")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from tokenprune.kernels.switch import version_of  # noqa: E402

from .cases import CASES, HALF  # noqa: E402

pytestmark = pytest.mark.slow
SM_90 = GPUTarget("cuda", 90, 32)
OPTIONS = ("num_warps", "num_stages")
NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.bool: "i1",
}


SAME = {"max_similarity", "segment_mean", "row_attention", "partial_step"}
"""Cases that launch the kernel of another one with less in it."""


class Large:
    """The sizes of a real call, and everything that is optional."""

    def size(self, low: int, high: int) -> int:
        return high

    def flag(self) -> bool:
        return True


def compile_launch(kernel: JITFunction, args, kwargs) -> list[str]:
    """The machine code's parts of one launch; raises where it does not compile."""
    options = {k: v for k, v in kwargs.items() if k in OPTIONS}
    given = dict(zip(kernel.arg_names, args)) | {k: v for k, v in kwargs.items() if k not in OPTIONS}
    signature, constants = {}, {}
    for parameter in kernel.params:
        value = given[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):  # as a launch does
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + NAMES[value.dtype]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(kernel, signature, constexprs=constants)
    built = triton.compile(source, target=SM_90, options=options)
    assert built.metadata.shared <= 227 * 1024, "shared memory of one program on an H100 or H200"
    return list(built.asm)


@pytest.fixture
def launches(monkeypatch):
    """Every launch is compiled instead."""
    seen: list[str] = []

    def compiled(self, *args, grid, warmup, **kwargs):
        parts = compile_launch(self, args, kwargs)
        assert "cubin" in parts
        seen.append(self.__name__)

    monkeypatch.setattr(JITFunction, "run", compiled)
    return seen


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, torch.bfloat16 if n in HALF else torch.float32) for n in CASES if n not in SAME]
    + [(n, torch.float32) for n in ("received_attention", "column_attention", "sparse_step")],
)
def test_compiles_for_an_h100(name, dtype, launches):
    call = CASES[name](Large(), "meta")
    version_of(call.function.home, call.function.__name__)(*call.arguments(dtype), **call.named)
    assert launches
