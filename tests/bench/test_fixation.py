"""The fixation bench runs end to end on small shapes, does what it says, and its goals follow from what is read."""

import pytest
import torch

from tokenprune import get_method
from tokenprune.bench.fixation import Steps, ideal, measure
from tokenprune.bench.sizes import Size, size

SMALL = Size(
    "small", 4, 32, 0, 4, 2, 6, text=8, keep=0.1, kind="fixation", goals=(("batch 1", 0.5), ("batch 8", 0.4))
)


def test_runs_end_to_end():
    seen = []
    lines = measure(SMALL, 2, tick=lambda *step: seen.append(step[:2]))
    assert seen == [(i, 4) for i in (1, 2, 3, 4)]
    assert [line.goal for line in lines] == [None, 0.5, None, 0.4] and all(
        line.ratio.pairs == 2 for line in lines
    )


def test_the_goals_are_shares_of_the_ideal():
    """0.4 of the ideal speed-up at batch 1, 0.5 at batch 8."""
    real, goals = size("fixation"), dict(size("fixation").goals)
    assert ideal(real, get_method("fixation", keep=0.05)) == pytest.approx(1 / 4.98, abs=1e-3)
    share = ideal(real, get_method("fixation", keep=0.05))
    assert goals["batch 1"] == pytest.approx(share / 0.4, abs=1e-3)
    assert goals["batch 8"] == pytest.approx(share / 0.5, abs=1e-3)


def test_a_step_reads_what_was_chosen():
    method = get_method("fixation", keep=0.1, k_min=1, focal=(1,))
    steps = Steps(SMALL, method, 2)
    steps.sparse()
    assert steps.gaze.chosen.sum(1).tolist() == [4, 4]  # a tenth of 36, rounded up
    out = steps.fixations.attend(
        steps.gaze, 2, steps.cache, steps.query, steps.keys[2], steps.values[2], None, steps.scaling
    )
    seen = torch.ones(2, 44, dtype=torch.bool)
    seen[:, 4:40] = steps.gaze.chosen
    wanted = torch.nn.functional.scaled_dot_product_attention(
        steps.query, steps.keys[2], steps.values[2], attn_mask=seen[:, None, None], enable_gqa=True
    )
    assert torch.allclose(out, wanted, atol=1e-5)
