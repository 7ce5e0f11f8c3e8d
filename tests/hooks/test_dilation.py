"""Focal layers that read a part of the page: against one cache-free forward in which the rest is masked for them too.

What they may read is worked out here in plain Python, from the choices before and from where each token lies.
"""

from __future__ import annotations

import pytest
import torch

from tests.hooks.test_fixation import generate, layer_masks
from tests.kernels.test_dilation import near
from tests.tiny.models import FAMILIES
from tests.tiny.reference import append_tokens, decoder_layers, eager, fresh_positions
from tokenprune import get_method, patch_model
from tokenprune.hooks import fixation as hooks
from tokenprune.hooks.gaze import gaze_of
from tokenprune.tokens import NEWLINE

STEPS, REFRESH, RADIUS = 7, 4, 1
CASES = [
    ("llava", "batch"), ("llava_next", "batch"), ("qwen2_5_vl", "batch"), ("qwen2_5_vl", "multi"),
    ("qwen2_5_vl", "mixed_batch"), ("internvl", "tiles_batch"),
]  # fmt: skip
OPTIONS = dict(keep=0.1, k_min=2, focal=(1, 2), dilate=RADIUS, refresh=REFRESH, theta=0.0)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=[1.0, 0.0], ids=["copied", "in place"])
def way(request, monkeypatch):
    """Candidates are copied out of the cache, or the rest is masked where it lies."""
    monkeypatch.setattr(hooks, "WORTH_COPYING", request.param)
    return request.param


def places(report, batch):
    """Per row: where its visual tokens lie, as (sheet, y, x), separators at their line's end; and has it a clip."""
    rows, clips = [[] for _ in range(batch)], [False] * batch
    for number, image in enumerate(report.images):
        for part, t, y, x in image.coords.tolist():
            if y == NEWLINE:
                sheet, line, column = rows[image.row][-1]
                rows[image.row].append((sheet, line, column + 1))
            else:
                rows[image.row].append(((number, part, t), y, x))
            clips[image.row] |= t > 0
    return rows, clips


def readable(seen, clip, past, visit):
    """What a focal layer may read of one row: its own choices `past` of the visits before this one."""
    everything = set(range(len(seen)))
    if visit % REFRESH == 0 or clip:
        return everything
    recent: set[int] = set()
    since = visit - visit % REFRESH
    for v in range(visit):
        whole = v <= since or recent >= everything
        recent = set(past[v]) if whole else recent | set(past[v])
    return near(seen, set(past[visit - 1]), RADIUS) | recent


def reads_of(seen, clips, choices, focal):
    """{(step, layer): per row the set that is read}."""
    out = {}
    for layer in focal:
        mine = [rows for _, at, rows in choices if at == layer]
        for visit in range(len(mine)):
            out[visit, layer] = [
                readable(s, c, [m[row] for m in mine], visit) for row, (s, c) in enumerate(zip(seen, clips))
            ]
    return out


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_step_equals_the_masked_reference(name, kind, way):
    family = FAMILIES[name]
    inputs, model = family.inputs(kind), family.build()
    with patch_model(model, "fixation", **OPTIONS) as handle:
        out = generate(model, inputs, STEPS)
        report = handle.report
    gaze = report.fixation
    tokens, prompt, batch = out.sequences[:, -STEPS:], inputs["input_ids"].shape[1], len(out.sequences)
    seen, clips = places(report, batch)
    read = reads_of(seen, clips, gaze.choices, gaze.focal)
    chosen = {(step, layer): rows for step, layer, rows in gaze.choices}
    assert any(len(r) < len(s) for rows in read.values() for r, s in zip(rows, seen)) != all(clips)

    plain = family.build()
    full = append_tokens(plain, inputs, tokens[:, :-1])
    length, layers = full["input_ids"].shape[1], len(decoder_layers(plain))
    hidden = torch.zeros(layers, batch, length, length, dtype=torch.bool)
    visual = [
        torch.cat(w) if w else torch.empty(0, dtype=torch.long) for w in family.visual_positions(inputs)
    ]
    latest = None
    for step in range(STEPS - 1):
        for layer in range(layers):
            allowed = read[step, layer] if layer in gaze.focal else latest
            for row in range(batch) if allowed is not None else ():
                away = torch.ones(len(visual[row]), dtype=torch.bool)
                away[list(allowed[row])] = False
                hidden[layer, row, prompt + step, visual[row][away]] = True
            latest = chosen[step, layer] if layer in gaze.focal else latest
    with eager(plain), fresh_positions(plain), layer_masks(plain, hidden):
        wanted = plain(**full, output_attentions=True)
    worst = max(
        float((wanted.logits[:, prompt + t] - out.logits[t + 1]).abs().max() / wanted.logits.abs().max())
        for t in range(STEPS - 1)
    )
    assert worst < 1e-4

    for (step, layer), rows in chosen.items():  # and each choice is the best of what was read
        for row, picked in enumerate(rows):
            score = wanted.attentions[layer][row, :, prompt + step, visual[row]].mean(0)
            rest = read[step, layer][row] - set(picked)
            assert set(picked) <= read[step, layer][row]
            assert len(picked) == min(
                len(seen[row]), get_method("fixation", **OPTIONS).num_read(len(seen[row]))
            )
            if rest:
                assert float(score[picked].min()) >= float(score[list(rest)].max()) - 1e-5

    shares = [sum(len(r) / len(s) for r, s in zip(rows, seen) if s) for rows in read.values()]
    focal = sum(shares) / len(shares) / sum(map(bool, seen)) if way else 1.0  # in place, everything is read
    share = (2 * focal + (layers - 2) * gaze.sparse_share) / layers
    assert gaze.read_share == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    "wide", [{"refresh": 1}, {"theta": 1.0}, {"dilate": 99, "theta": 0.0}], ids=["R 1", "theta 1", "r 99"]
)
def test_reading_everything_is_no_dilation(wide, way):
    family = FAMILIES["llava"]
    inputs, model = family.inputs("batch"), family.build()
    one = {"keep": 0.3, "k_min": 1, "focal": (1,)}
    with patch_model(model, "fixation", **one) as handle:
        plain, choices = generate(model, inputs, STEPS), handle.report.fixation.choices
    with patch_model(model, "fixation", **{**one, "dilate": 1, **wide}) as handle:
        out, report = generate(model, inputs, STEPS), handle.report.fixation
    assert report.choices == choices and report.read_share == pytest.approx(
        0.25 + 0.75 * report.sparse_share, abs=1e-2
    )
    for a, b in zip(plain.logits, out.logits):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))
        assert way or torch.equal(a, b)


def test_batch_rows_equal_single_runs(way):
    family = FAMILIES["qwen2_5_vl"]
    model = family.build()
    with patch_model(model, "fixation", **{**OPTIONS, "theta": 0.6}) as handle:
        together = generate(model, family.inputs("mixed_batch"), STEPS)
        rows = handle.report.fixation.choices
        for i, row in enumerate(family.rows("mixed_batch")):
            alone = generate(model, row, STEPS)
            assert torch.equal(together.sequences[i, -STEPS:], alone.sequences[0, -STEPS:])
            if handle.report.fixation is not None:
                assert [m[i] for _, _, m in rows] == [o[0] for _, _, o in handle.report.fixation.choices]


def test_memory_follows_its_row(monkeypatch):
    monkeypatch.setattr(hooks, "WORTH_COPYING", 1.0)
    family = FAMILIES["llava_next"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_model(model, "fixation", **OPTIONS):
        cache = generate(model, inputs, STEPS).past_key_values
        gaze = gaze_of(cache)
        assert sorted(gaze.state) == [1, 2] and all(len(v) == 2 for v in gaze.state[1].values())
        before = {layer: {k: v.clone() for k, v in own.items()} for layer, own in gaze.state.items()}
        cache.reorder_cache(torch.tensor([1, 0]))
        cache.batch_repeat_interleave(2)
        for layer, own in before.items():
            for name, value in own.items():
                assert torch.equal(gaze.state[layer][name], value[[1, 1, 0, 0]])
        assert gaze.coords.shape[0] == gaze.spared.shape[0] == 4
        cache.reset()
        assert gaze_of(cache) is None


def test_beams_and_groups():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    beams = dict(num_beams=3, max_new_tokens=8, do_sample=False)
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=(1,)):
        wanted = model.generate(**inputs, **beams)
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=(1,), dilate=1, theta=1.0):
        assert torch.equal(model.generate(**inputs, **beams), wanted)
    with patch_model(model, "fixation", **OPTIONS, per_group=True) as handle:
        out = model.generate(**inputs, **beams, output_logits=True, return_dict_in_generate=True)
        assert all(torch.isfinite(step).all() for step in out.logits)
        assert handle.report.fixation.read_share < 1


def test_a_later_picture_and_an_earlier_cut():
    """Parts are numbered on through a conversation; what a first stage dropped is never read again."""
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    with patch_model(model, "fixation", **OPTIONS):
        cache = model(**inputs, use_cache=True).past_key_values
        first = gaze_of(cache).coords
        model(**{**inputs, "attention_mask": None}, past_key_values=cache, use_cache=True)
        both = gaze_of(cache).coords
        n = first.shape[1]
        assert torch.equal(both[:, :n], first) and torch.equal(both[:, n:, 1:], first[..., 1:])
        assert int(both[:, n:, 0].min()) == int(first[..., 0].max()) + 1
    with patch_model(model, [("uniform", {"keep": 0.5}), ("fixation", OPTIONS)]) as handle:
        generate(model, family.inputs("batch"), STEPS)
        kept, before = [set() for _ in range(2)], [0, 0]
        for image in handle.report.images:
            kept[image.row] |= {before[image.row] + i for i in image.kept}
            before[image.row] += image.before
        for _, _, rows in handle.report.fixation.choices:
            assert all(chosen and set(chosen) <= allowed for chosen, allowed in zip(rows, kept, strict=True))
