"""VisionZip against plain Python, and its traps by hand: growing norms, uneven strides, separators, counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def plain(features, saliency, keys, separators, keep, share=0.15625, beta=0.5, official=False):
    """{kept index: merged feature}, {token: where it went} for one image, token by token."""
    n = len(saliency)
    count = int(share * keep + 0.5)
    by_attention = sorted(range(n), key=lambda i: (-saliency[i], i))
    dominant = by_attention[: keep - count]
    out = {i: features[i] for i in dominant}
    owner = {i: i for i in dominant}
    rest = [i for i in range(n) if i not in dominant]
    patches = [i for i in rest if i not in separators]
    if count > len(patches):
        targets = (patches + [i for i in rest if i in separators])[:count]
    elif official:
        targets = patches[:: len(patches) // count][:count] if count else []
    else:
        targets = [patches[i * len(patches) // count] for i in range(count)]
    length = np.linalg.norm(keys, axis=1)
    groups = {t: [] for t in targets}
    for i in patches:
        if i in targets:
            continue
        if not targets:
            owner[i] = -1
            continue
        alike = [keys[i] @ keys[t] / (length[i] * length[t]) for t in targets]
        owner[i] = targets[int(np.argmax(alike))]
        groups[owner[i]].append(i)
    for t, members in groups.items():
        owner[t], out[t] = t, features[t]
        if members:
            mean = sum(features[i] for i in members) / len(members)
            out[t] = features[t] + mean if official else beta * features[t] + (1 - beta) * mean
    return out, [owner.get(i, -1) for i in range(n)]


@quick
@given(
    st.sampled_from([k for k in LAYOUTS if k != "medium"]),
    st.integers(0, 10**6),
    st.data(),
    st.sampled_from([{}, {"compat": "official"}, {"contextual": 0.5, "beta": 0.8}, {"contextual": 1.0}]),
)
def test_agrees_with_a_loop_over_tokens(layout, seed, data, hyper):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    keep = data.draw(st.integers(1, tokens.shape[1]))
    selection = get_method("visionzip", **hyper).select(tokens, keep)
    separators = {i for i, y in enumerate(tokens.coords[:, 2].tolist()) if y < 0}
    for s in range(2):
        arrays = [t[s].double().numpy() for t in (tokens.features, tokens.saliency, tokens.vision_keys)]
        values = {{"contextual": "share", "compat": "official"}.get(k, k): v for k, v in hyper.items()}
        expected, owner = plain(*arrays, separators, keep, **values)
        assert selection.keep[s].nonzero().flatten().tolist() == sorted(expected)
        if selection.features is None:
            assert int(hyper.get("contextual", 0.15625) * keep + 0.5) == 0
            continue
        assert selection.owner[s].tolist() == owner
        for i, value in expected.items():
            torch.testing.assert_close(
                selection.features[s, i].double(), torch.tensor(value), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(("keep", "contextual"), [(192, 30), (128, 20), (64, 10)])
def test_the_published_splits(keep, contextual):
    tokens = make_tokens(image(24, 24))
    selection = get_method("visionzip").select(tokens, keep)
    dominant = tokens.saliency[0].topk(keep - contextual).indices
    assert selection.keep[0, dominant].all() and selection.keep.sum() == keep
    changed = (selection.features != tokens.features).any(2)[0]
    assert changed.sum() == contextual and not changed[dominant].any()
    assert (selection.owner >= 0).all(), "every token went somewhere"


def test_the_sum_grows_and_the_mean_does_not():
    """Where all tokens are alike the released rule doubles them."""
    tokens = make_tokens(image(8, 8))
    tokens.features = torch.ones_like(tokens.features)
    norm = tokens.features.norm(dim=2).max()
    for compat, factor in ((None, 1.0), ("official", 2.0)):
        selection = get_method("visionzip", compat=compat).select(tokens, 13)
        torch.testing.assert_close(selection.features.norm(dim=2).max(), factor * norm)
    tokens = make_tokens(LAYOUTS["medium"], images=3)
    merged = get_method("visionzip", contextual=0.5).select(tokens, 100)
    assert (merged.features.norm(dim=2) <= tokens.features.norm(dim=2).amax(1, keepdim=True)).all()


def test_a_target_nobody_joins_stays_as_it_is():
    keys = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0.1]])[None]
    tokens = VisualTokens(
        torch.randn(1, 4, 3), None, saliency=torch.tensor([[9.0, 1, 1, 1]]), vision_keys=keys
    )
    for compat in (None, "official"):
        selection = get_method("visionzip", contextual=2 / 3, compat=compat).select(tokens, 3)
        assert selection.keep[0].tolist() == [True, True, True, False]  # targets 1 and 2; 3 joins 1
        assert selection.owner[0].tolist() == [0, 1, 2, 1]
        assert torch.equal(selection.features[0, 2], tokens.features[0, 2])
        middle = (tokens.features[0, 1] + tokens.features[0, 3]) / 2
        torch.testing.assert_close(selection.features[0, 1], middle * (2 if compat else 1))


def test_targets_reach_the_bottom_of_the_picture_where_released_steps_do_not():
    """49 others for 25 targets: steps of floor(49 / 25) = 1 stop half way down."""
    tokens = make_tokens(image(7, 7))
    lowest = {}
    for compat in (None, "official"):
        kept = get_method("visionzip", contextual=1.0, compat=compat).select(tokens, 25).keep[0]
        lowest[compat] = int(kept.nonzero().max())
    assert lowest == {None: 24 * 49 // 25, "official": 24}


def test_separators_stay_out_of_the_means():
    tokens = make_tokens(LAYOUTS["newlines"])
    newline = tokens.coords[:, 2] < 0
    tokens.features[:, newline] = 1e6
    tokens.saliency[:, newline] = 0.0
    selection = get_method("visionzip", contextual=0.5).select(tokens, 10)
    assert selection.features[selection.keep].abs().max() < 100
    assert (selection.owner[0, newline] == -1).all() and (selection.owner[0, ~newline] >= 0).all()
    full = get_method("visionzip").select(tokens, tokens.shape[1])
    assert full.keep.all() and torch.equal(full.features, tokens.features)


def test_without_attention_it_says_so():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("visionzip").select(tokens, 5)
