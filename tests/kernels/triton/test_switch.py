"""The one switch between the references and Triton."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tokenprune import kernels
from tokenprune.errors import TokenPruneError
from tokenprune.kernels import switch


def test_a_choice_holds_until_the_next_and_inside_a_with():
    assert kernels.backend.chosen() == "auto"
    with kernels.backend("torch"):
        assert kernels.backend.chosen() == "torch"
        with kernels.backend("triton"):
            assert kernels.backend.chosen() == "triton"
        assert kernels.backend.chosen() == "torch"
    assert kernels.backend.chosen() == "auto"
    before = kernels.backend("torch")
    assert kernels.backend.chosen() == "torch"
    before.__exit__(None, None, None)
    with pytest.raises(KeyError), kernels.backend("torch"):
        raise KeyError
    assert kernels.backend.chosen() == "auto"
    with pytest.raises(TokenPruneError, match="auto, torch, triton"):
        kernels.backend("cuda")


def test_triton_where_it_cannot_run_is_an_error_and_auto_is_torch():
    a, b = torch.rand(1, 5), torch.rand(1, 5)
    wanted = kernels.geometric_fusion.reference(a, b, 0.5)
    with kernels.backend("triton"), pytest.raises(TokenPruneError, match="cannot run on cpu"):
        kernels.geometric_fusion(a, b, 0.5)
    assert torch.equal(kernels.geometric_fusion(a, b, 0.5), wanted)


@pytest.fixture
def stand_in(monkeypatch):
    """A Triton version of everything that answers with its own name, on any device."""
    monkeypatch.setattr(switch, "_trouble", lambda device: None)
    monkeypatch.setattr(switch, "_launch", lambda home, name, *rest: (home, name))


def test_what_is_not_covered_runs_in_torch(stand_in):
    a = torch.rand(1, 5)
    with kernels.backend("triton"):
        assert kernels.geometric_fusion(a, a, 0.5) == ("relevance", "geometric_fusion")
        assert kernels.geometric_fusion(a=a, b=a, eta=0.5) == ("relevance", "geometric_fusion")
        for x in (a.double(), a[:0], a.clone().requires_grad_(), torch.rand(1, 5, device="meta")[:, :0]):
            assert isinstance(kernels.geometric_fusion(x, x, 0.5), torch.Tensor)
        with torch.no_grad():
            assert kernels.geometric_fusion(a.clone().requires_grad_(), a, 0.5)[0] == "relevance"
        with kernels.backend("torch"):
            assert isinstance(kernels.geometric_fusion(a, a, 0.5), torch.Tensor)
    assert isinstance(kernels.geometric_fusion(a, a, 0.5), torch.Tensor)


def test_an_answer_of_not_implemented_is_the_references(monkeypatch):
    monkeypatch.setattr(switch, "_trouble", lambda device: None)
    monkeypatch.setattr(switch, "_launch", lambda *rest: NotImplemented)
    a = torch.rand(1, 5)
    with kernels.backend("triton"):
        assert torch.equal(kernels.minmax(a), kernels.minmax(a))
        assert torch.equal(kernels.geometric_fusion(a, a, 0.5), kernels.geometric_fusion.reference(a, a, 0.5))


def test_nothing_imports_triton_until_it_runs():
    """Nor does a machine without it notice: every kernel file is imported with triton made to fail."""
    code = """
import sys, pkgutil, importlib
sys.modules["triton"] = None
import torch, tokenprune.kernels as k
for m in pkgutil.iter_modules(k.__path__):
    if not m.ispkg:
        importlib.import_module("tokenprune.kernels." + m.name)
a = torch.rand(1, 4)
assert k.geometric_fusion(a, a, 0.5).shape == a.shape
from tokenprune.errors import TokenPruneError
try:
    with k.backend("triton"):
        k.geometric_fusion(a, a, 0.5)
except TokenPruneError as error:
    assert "not installed" in str(error), error
else:
    raise SystemExit("triton ran")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
