"""What merging inside a tower computes, against loops over tokens; on every library's towers."""

from __future__ import annotations

import copy

import pytest
import torch

from tokenprune import patch_tower

from ..methods.watch import Watch
from .make import DEPTH, PATCHES, SIDE, TOWERS, blocks, pictures, prefix, tensors, tower
from .reference import run

PLANS = {"r": {"r": 6}, "keep": {"keep": 0.4}, "some layers": {"r": [4, 5], "layers": [0, 2]}}
RS = {"r": [6, 6, 6], "keep": [5, 5, 5], "some layers": [4, 0, 5]}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def watched(model, x) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The tower's answer, what enters its first block and what leaves each."""
    entered, left = [], []
    hooks = [blocks(model)[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))]
    hooks += [b.register_forward_hook(lambda _, args, out: left.append(out)) for b in blocks(model)]
    try:
        output = tensors(model(x))
    finally:
        for hook in hooks:
            hook.remove()
    return output, entered, left


def finished(model, x, state: torch.Tensor) -> list[torch.Tensor]:
    """The answer of the unpatched tower whose last block gives `state`."""
    hook = blocks(model)[-1].register_forward_hook(lambda *_: state)
    try:
        return tensors(model(x))
    finally:
        hook.remove()


def close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        torch.testing.assert_close(f.double(), e.double(), atol=1e-5, rtol=1e-5)


EVERYWHERE = [(name, "r") for name in TOWERS]
ELSEWHERE = [
    (name, plan) for name in ("clip", "siglip", "deit", "open_clip") for plan in ("keep", "some layers")
]


@pytest.mark.parametrize("name,plan", EVERYWHERE + ELSEWHERE)
def test_equals_loops_over_tokens(name, plan):
    model, x, first = tower(name), pictures(), prefix(name)
    plain, (entered,), _ = watched(model, x)
    expected = [run(blocks(model), image, first, RS[plan]) for image in entered]
    with patch_tower(model, "tome", **PLANS[plan]) as handle:
        output, _, left = watched(model, x)
        report = handle.report
    for i in range(DEPTH):
        close([left[i]], [torch.stack([o.states[i] for o in expected])])
    close(output, finished(model, x, torch.stack([o.states[-1] for o in expected]).float()))
    assert [t.shape for t in output] == [t.shape for t in plain]
    assert not torch.allclose(output[0], plain[0], atol=1e-2), "merging is seen to change something"
    assert report.per_block == [n - first for n in expected[0].counts]
    for b, outcome in enumerate(expected):
        groups = [[i - first for i in members] for members in outcome.members[first:]]
        assert report.size[b].tolist() == [len(g) for g in groups]
        for members in groups:
            owners = set(report.owner[b][members].tolist())
            assert len(owners) == 1 and owners <= set(members)


@pytest.mark.parametrize("name", ["clip", "timm", "open_clip"])
def test_without_proportional_attention(name):
    model, x = tower(name), pictures()
    _, (entered,), _ = watched(model, x)
    expected = torch.stack([run(blocks(model), image, 1, [6, 6, 6], False).states[-1] for image in entered])
    with patch_tower(model, r=6, proportional=False):
        _, _, left = watched(model, x)
    close(left[-1:], [expected])


@pytest.mark.parametrize("name", TOWERS)
def test_merged_tokens_are_those_outside_without_their_copies(name):
    """And what the tower pools is the same: a group counts by its size either way."""
    model, x, first = tower(name), pictures(), prefix(name)
    with patch_tower(model, r=6):
        whole, _, long = watched(model, x)
    with patch_tower(model, r=6, unmerge=False) as handle:
        output, _, left = watched(model, x)
        report = handle.report
    for i in range(DEPTH):
        assert left[i].shape[1] == first + PATCHES - 6 * (i + 1)
    for b in range(len(x)):
        slots = sorted(set(report.owner[b].tolist()))
        places = [*range(first), *(first + s for s in slots)]
        close([left[-1][b]], [long[-1][b][places]])
    pooled = [(f, w) for f, w in zip(output, whole) if f.shape == w.shape]
    assert pooled
    close(*map(list, zip(*pooled)))


@pytest.mark.parametrize("name", TOWERS)
def test_sizes_members_and_values(name):
    model, first = tower(name), prefix(name)
    with patch_tower(model, keep=7) as handle:
        _, _, left = watched(model, pictures(3))
        report = handle.report
    assert (report.before, report.after, report.pictures, report.prefix) == (PATCHES, 7, 3, first)
    assert report.size.sum(1).tolist() == [PATCHES] * 3
    for b in range(3):
        owner, values = report.owner[b].tolist(), left[-1][b, first:]
        assert len(set(owner)) == 7 == len({tuple(v.tolist()) for v in values})
        assert all(torch.equal(values[i], values[o]) and owner[o] == o for i, o in enumerate(owner))
        slots = sorted(set(owner))
        assert report.size[b].tolist() == [owner.count(s) for s in slots]


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("unmerge", [True, False])
def test_nothing_to_merge_is_the_unpatched_tower_bit_for_bit(name, unmerge):
    model, x = tower(name), pictures()
    plain = tensors(model(x))
    for nothing in ({"r": 0}, {"keep": 1.0}, {"keep": PATCHES}):
        with patch_tower(model, **nothing, unmerge=unmerge) as handle:
            assert all(map(torch.equal, tensors(model(x)), plain))
            assert handle.report.per_block == [PATCHES] * DEPTH
            assert handle.report.flops == handle.report.flops_unmerged


@pytest.mark.parametrize("name", TOWERS)
def test_a_batch_is_its_pictures(name):
    model, x = tower(name), pictures(3)
    with patch_tower(model, r=6) as handle:
        together, report = tensors(model(x)), handle.report
        for b in range(3):
            close([t[b : b + 1] for t in together], tensors(model(x[b : b + 1])))
            assert torch.equal(handle.report.owner[0], report.owner[b])


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("unmerge", [True, False])
def test_gradients_flow(name, unmerge):
    """Into pixels and weights, and equal to difference quotients where the choice of pairs stays the same."""
    model = copy.deepcopy(tower(name)).double()
    g = torch.Generator().manual_seed(5)
    x, step = pictures(1).double(), 1e-5 * torch.randn(1, 3, SIDE, SIDE, generator=g).double()
    weight = next(p for n, p in blocks(model)[0].named_parameters() if "mlp" in n and p.dim() == 2)
    owner = []
    with patch_tower(model, r=6, unmerge=unmerge) as handle, torch.enable_grad():

        def loss(pixels):
            value = sum(t.square().mean() for t in tensors(model(pixels)))
            owner.append(handle.report.owner)
            return value

        pixels = x.clone().requires_grad_()
        weight.requires_grad_()
        to_pixels, to_weight = torch.autograd.grad(loss(pixels), (pixels, weight))
        quotient = (loss(x + step) - loss(x - step)) / 2
    assert all(torch.equal(o, owner[0]) for o in owner), "a pair flipped: another seed is needed"
    assert to_weight.abs().max() > 0
    torch.testing.assert_close((to_pixels * step).sum(), quotient.detach(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_either_attention_of_transformers(attn):
    model, x = tower("siglip"), pictures()
    before = model.config._attn_implementation
    _, (entered,), _ = watched(model, x)
    expected = torch.stack([run(blocks(model), image, 0, [6, 6, 6]).states[-1] for image in entered])
    try:
        model.set_attn_implementation(attn)
        with patch_tower(model, r=6):
            _, _, left = watched(model, x)
    finally:
        model.set_attn_implementation(before)
    close(left[-1:], [expected])


@pytest.mark.parametrize("name", ["clip", "timm", "open_clip"])
def test_half_precision_is_merged_by_the_same_pairs(name):
    """Means are in float32 inside; what is left is what bfloat16 does to the tower."""
    half, x = copy.deepcopy(tower(name)).bfloat16(), pictures()
    with patch_tower(half, r=6, layers=[0]) as handle:
        output = tensors(half(x.bfloat16()))
        report = handle.report
    assert output[0].dtype == torch.bfloat16 and all(torch.isfinite(t).all() for t in output)
    assert report.size.sum(1).tolist() == [PATCHES] * 2
    with patch_tower(tower(name), r=6), torch.autocast("cpu", torch.bfloat16):
        assert all(torch.isfinite(t).all() for t in tensors(tower(name)(x)))


def test_work_does_not_grow_with_pictures():
    """No loop over pictures or tokens: as many operations for eight as for one."""
    model, counts = tower("clip"), []
    with patch_tower(model, r=6):
        for n in (1, 8):
            with Watch() as seen:
                model(pictures(n))
            counts.append(seen.total)
            assert seen.waits == []
    assert counts[0] == counts[1] > 0
