"""What choosing tokens may cost, in numbers that no machine changes: operations, FLOPs, memory beside the features."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from tokenprune.flops import LayerSize
from tokenprune.kernels import bipartite_dedup, dedup_turns
from tokenprune.kernels.bipartite import merge_rounds
from tokenprune.methods import get_method, list_methods, method_class

from .make import clip, image, make_tokens
from .watch import Watch, peak_bytes

NAMES = [name for name in list_methods() if method_class(name).stage == "input"]
GROUPS = {"image": image(24, 24), "video": clip(8, 8, 9)}  # 576 tokens each, of which a quarter is kept
KEEP, DIM = 144, 1024
PLAIN, PER_TURN, TURNS, PER_STEP = 60, 12, 16, 6
LLAVA_7B = LayerSize.of(LlamaConfig(), 0)  # whose defaults are the sizes of the 7B model

SCHEDULES = {
    "flashvlm": lambda n: dedup_turns(n - KEEP // 2, KEEP // 2),
    "vispruner": lambda n: dedup_turns(n - KEEP // 2, KEEP // 2),
    "tome": lambda n: merge_rounds(n, KEEP),
}
STEPS = {name: KEEP for name in ("divprune", "instance", "cdpruner", "cubes", "progressive")}
STEPS["holitom"] = 8  # frames: the best windows are found one frame after the other

ABOVE = {"fastvid": 103}
"""Methods that take more operations than the bound, and how many: they must not take more still.

Each of fastvid's stages follows from the one before: salient tokens take 10, segments 11, density peaks 28, the
anchor frames of each segment 10, anchors 8, the nearest anchors 20, weights and means 16.
"""


def allowed(name: str, n: int) -> int:
    turns = len(SCHEDULES[name](n)) if name in SCHEDULES else 0
    assert turns <= TURNS
    return PLAIN + PER_TURN * turns + PER_STEP * STEPS.get(name, 0)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", NAMES)
def test_operations_flops_and_memory(name, group):
    tokens = make_tokens(GROUPS[group], dim=DIM)
    n, method = tokens.shape[1], get_method(name)
    with FlopCounterMode(display=False) as flops, Watch() as watch:
        method.select(tokens, KEEP)
    bound = allowed(name, n)
    known = ABOVE.get(name)
    assert watch.computed <= (known or bound), watch.ops
    if known:
        assert watch.computed > bound, f"{name} keeps the bound now: take it out of ABOVE"
    # What is multiplied is as wide as the features at most, so a hundredth at their full width is one here.
    prefill = 32 * LLAVA_7B.flops(n, n)
    assert flops.get_total_flops() * 4096 / DIM <= prefill / 100
    features = 4 * tokens.features.numel()  # in float32, in which everything is scored
    assert peak_bytes(lambda: method.select(tokens, KEEP)) <= 4 * features


@pytest.mark.parametrize("share", [0.5, 0.1, 0.05, 0.02])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_operations_of_sixteen_turns_do_for_small_budgets_of_a_picture(name, share):
    """At 2 % a schedule has up to 24 turns, each shorter than the bound of one (of 4,096 tokens 34: too many)."""
    tokens = make_tokens(GROUPS["image"], dim=32)
    with Watch() as watch:
        get_method(name).select(tokens, int(share * 576))
    assert watch.computed <= PLAIN + PER_TURN * TURNS, watch.ops


@pytest.mark.parametrize("name", NAMES)
def test_memory_in_half_precision_is_that_of_float32(name):
    tokens = make_tokens(GROUPS["image"], dim=DIM, dtype=torch.bfloat16)
    method = get_method(name)
    assert peak_bytes(lambda: method.select(tokens, KEEP)) <= 4 * 4 * tokens.features.numel()


def test_the_peak_is_seen():
    x = torch.zeros(2**18)
    assert 2**20 <= peak_bytes(lambda: x + 1) < 1.1 * 2**20
    assert 2**21 <= peak_bytes(lambda: (x + 1) + (x + 2)) <= 3.1 * 2**20


def test_flashvlm_on_many_tokens_costs_a_hundredth_of_the_official_schedule():
    """Tensors without data: the work is a function of the shapes. Coverage is compared in test_flashvlm.py."""
    n, keep = 16_384, 4_096
    method = get_method("flashvlm")
    first = int(method.important_ratio * keep)
    features = torch.empty(1, n, 1024, device="meta")
    rest = torch.empty(1, n - first, dtype=torch.long, device="meta")
    schedules = {
        "default": {"share": method.dedup, "step": method.dedup_step, "window": method.window},
        "official": {"share": 0.0, "step": 8, "window": None},
    }
    total = {}
    for name, schedule in schedules.items():
        with FlopCounterMode(display=False) as flops:
            bipartite_dedup(features, rest, keep - first, **schedule)
        total[name] = flops.get_total_flops()
    assert 0 < 100 * total["default"] <= total["official"]
