"""Which version of a kernel runs: the torch reference, or the Triton one of the same name beside it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from ..errors import TokenPruneError

P = ParamSpec("P")
R = TypeVar("R")

CHOICES = ("auto", "torch", "triton")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (3, 4)
"""Triton before this is left alone; see `tests/kernels/triton` for what has been tried."""


class backend:
    """`backend("torch")` chooses for this process from now on; `with backend("torch"):` for what stands inside.

    "auto", the default: Triton on CUDA tensors where Triton works, else torch. "torch": the references everywhere.
    "triton": Triton, and an error where it cannot run, which is anywhere but on a GPU or in Triton's interpreter
    (TRITON_INTERPRET=1 before the first import of triton). Whatever the choice, torch runs what a Triton version
    does not cover: float64, empty tensors, calls that need a gradient or are being traced by torch.compile, and
    the cases that its docstring names.
    """

    _chosen = "auto"

    def __init__(self, name: str) -> None:
        if name not in CHOICES:
            raise TokenPruneError(f"backend({name!r}): one of {', '.join(CHOICES)}")
        self.name, self._before = name, backend._chosen
        backend._chosen = name

    def __enter__(self) -> backend:
        return self

    def __exit__(self, *error: object) -> None:
        backend._chosen = self._before

    @staticmethod
    def chosen() -> str:
        """The name that counts now."""
        return backend._chosen


def with_triton(home: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let the function of the same name in `kernels/triton/<home>.py` stand in for the reference it decorates.

    It takes the same arguments; what it does not cover it answers with NotImplemented. The reference stays at hand as
    the attribute `reference`.
    """

    def decorate(reference: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(reference)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            chosen = backend._chosen
            if chosen == "torch":
                return reference(*args, **kwargs)
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            if (chosen == "auto" and not tensors[0].is_cuda) or not _covered(tensors):
                return reference(*args, **kwargs)
            if not _usable(tensors[0].device, chosen == "triton"):
                return reference(*args, **kwargs)
            answer = _launch(home, reference.__name__, tensors[0], chosen, args, kwargs)
            return reference(*args, **kwargs) if answer is NotImplemented else cast(R, answer)

        run.reference = reference  # type: ignore[attr-defined]
        run.home = home  # type: ignore[attr-defined]
        return run

    return decorate


def version_of(home: str, name: str) -> Callable[..., Any]:
    """The Triton function of that name. Imports Triton."""
    return getattr(importlib.import_module(f"{__package__}.triton.{home}"), name)


def _covered(tensors: list[Tensor]) -> bool:
    if torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    device = tensors[0].device
    return all(
        t.numel() > 0
        and t.device == device
        and (t.dtype in DTYPES or not t.dtype.is_floating_point)
        and type(t) in (Tensor, torch.nn.Parameter)
        for t in tensors
    )


def _launch(home: str, name: str, like: Tensor, chosen: str, args: Any, kwargs: Any) -> Any:
    """The Triton version's answer; under "auto" a kernel that does not build for this device warns and gives way."""
    from triton.errors import TritonError

    if (home, name, like.device) in _BROKEN:
        return NotImplemented
    here = torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext()
    try:
        with torch.no_grad(), here:
            return version_of(home, name)(*args, **kwargs)
    except TritonError as error:
        if chosen == "triton":
            raise
        _BROKEN.add((home, name, like.device))
        warnings.warn(
            f"the Triton version of {name} does not build on {like.device}, torch runs instead: {error}",
            stacklevel=4,
        )
        return NotImplemented


_BROKEN: set[tuple[str, str, torch.device]] = set()


def _usable(device: torch.device, wanted: bool) -> bool:
    trouble = _trouble(device)
    if trouble is not None and wanted:
        raise TokenPruneError(f"the Triton kernels cannot run on {device}: {trouble}")
    return trouble is None


@functools.lru_cache(maxsize=64)
def _trouble(device: torch.device) -> str | None:
    """What keeps Triton from this device, None if nothing does; found by one tiny launch, once a process."""
    try:
        import triton
    except ImportError:
        return "triton is not installed"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        return f"triton {triton.__version__} is older than {'.'.join(map(str, OLDEST))}"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "it is no GPU, and Triton's interpreter is off (TRITON_INTERPRET=1)"
    try:  # a missing compiler or Python header, an old GPU, a driver of another age: each raises something else
        version_of("probe", "probe")(device)
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}"
        warnings.warn(f"triton is installed but does not run, the torch kernels do ({trouble})", stacklevel=5)
        return trouble
    return None
