"""DyCoke's second stage on a model: fewer keys while the answer is written, after its own cut and without it."""

from __future__ import annotations

import pytest
import torch

from tests.tiny.models import FAMILIES
from tokenprune import get_method, patch_model

STEPS = 5
NAME = "llava_onevision"


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def run(method, kind="video_batch"):
    """Logits of every step, tokens and the report."""
    family = FAMILIES[NAME]
    model = family.build()
    with patch_model(model, method) as handle:
        out = model.generate(
            **family.inputs(kind), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        return torch.stack(out.logits), out.sequences, handle.report, handle.recipe()


def test_always_choosing_anew_is_fixation_with_one_focal_layer():
    """Where every step may choose, and as many keys are read: the layers before the focal one dense."""
    n = sum(i.before for i in run(get_method("dycoke", keep=1.0), "video")[2].images)
    read = get_method("dycoke", drop=0.6).num_read(n)
    ours = run(get_method("dycoke", stages="decode", layer=1, drop=0.6, similar=1.0), "video")
    same = run(get_method("fixation", keep=read, k_min=1, focal=(1,), dense=1), "video")
    assert ours[2].fixation.choices == same[2].fixation.choices and len(ours[2].fixation.choices) == STEPS - 1
    torch.testing.assert_close(ours[0], same[0])
    dense = run(get_method("dycoke", keep=1.0), "video")[0]
    assert float((ours[0] - dense).abs().max()) > 1e-3


def test_a_gaze_that_is_always_alike_keeps_the_first_choice():
    choices = run(get_method("dycoke", stages="decode", layer=1, similar=-1.0))[2].fixation.choices
    assert len({str(rows) for _, _, rows in choices}) == 1
    official = get_method("dycoke", stages="decode", layer=2, similar=-1.0, compat="official")
    counts = [
        [len(row) for row in rows] for _, layer, rows in run(official)[2].fixation.choices if layer == 1
    ]
    assert counts[0] < counts[1] == counts[2], "the first step chooses; later ones read everything"


def test_both_stages_under_one_name():
    method = get_method("dycoke", stages="both", keep=0.6, layer=1, drop=0.5)
    logits, tokens, report, recipe = run(method)
    assert [i.after for i in report.images] == [method.num_kept(i.before) for i in report.images]
    left: list[list[int]] = [[], []]
    size = [0, 0]
    for image in report.images:  # places among all visual tokens of the row
        left[image.row] += [size[image.row] + i for i in image.kept]
        size[image.row] += image.before
    assert len(report.fixation.choices) == STEPS - 1
    for _, _, rows in report.fixation.choices:
        for kept, row in zip(left, rows, strict=True):
            assert set(row) <= set(kept) and len(row) == len(kept) // 2
    assert [(name, hyper["stages"]) for name, hyper in recipe.methods] == [("dycoke", "both")]
    again = run([get_method(name, **hyper) for name, hyper in recipe.methods])
    assert torch.equal(logits, again[0]) and torch.equal(tokens, again[1])


def test_a_clip_below_the_floor_is_refused_with_the_floor():
    from tokenprune.errors import BudgetError

    for name in ("evs", "dycoke"):
        with pytest.raises(BudgetError, match="floor is"):
            run(get_method(name, keep=0.1, frames=2))
