"""What every method that selects promises. A new file in methods/ is tested here without an edit."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import BudgetError, TokenPruneError, UnknownNameError
from tokenprune.methods import get_method, list_methods, method_class

from .make import LAYOUTS, make_tokens, take
from .watch import Watch, host_reads

NAMES = [name for name in list_methods() if method_class(name).stage in ("input", "layer")]
VARIANTS = {
    "uniform": [{"over": "grid"}, {"over": "frames"}],
    "random": [{"seed": 7}],
    "flashvlm": [
        {"compat": "official"},
        {"window": 1, "norm_gate": True},
        {"eta": 0.0},
        {"important_ratio": 0.0},
    ],
    "entropyprune": [{"compat": "official"}, {"solver": "chebyshev"}],
    "dart": [{"text_pivots": 0}, {"visual_pivots": 1, "text_pivots": 9}],
    "pyramiddrop": [{"ratio": 0.5, "budget": "after"}],
    "soft_resample": [{"reach": 0, "tau": 1.0}, {"reach": 4}],
    "progressive": [
        {"budget": "adaptive"},
        {"budget": "adaptive", "window": 2, "reset_on_cut": 0.9, "gamma": 0.5, "k_min": 0},
        {"window": 1, "reset_on_cut": 0.9, "absorb": True},
        {"budget": "adaptive", "absorb": True},
        {"budget": "threshold", "eps": 0.9, "window": 2},
        {"budget": "threshold", "eps": 0.8, "gamma": 1.0, "reset_on_cut": 0.9, "k_min": 0, "absorb": True},
    ],
    "fastvid": [{"context": 1.0, "beta": 0.0}, {"context": 0.0}, {"segments": 2, "stride": 2}],
    "holitom": [{"context": 0.5, "tau": 0.0}, {"context": 1.0, "tau": -0.3, "beta": 0.0}],
    "sparsevlm": [{"recycle": 0.0}, {"recycle": 1.0, "ratio": None}],
    "instance": [
        {"seeds": "attention", "metric": "vision_features"},
        {"seeds": "fps", "beta": "adaptive"},
        {"seeds": "density"},
        {"seeds": "grid", "normalize": True},
    ],
    "tome": [{"metric": "features", "share": 0.1}],
    "cdpruner": [{"theta": 0.5, "negative": False}],
    "holov": [{"compat": "official", "crops": 3}, {"alpha": 0.0, "crops": 1000}],
    "prumerge": [
        {"compat": "official"},
        {"budget": "fixed"},
        {"budget": "fixed", "compat": "official", "neighbours": 3},
    ],
    "prumerge_plus": [{"compat": "official"}, {"budget": "fixed"}, {"budget": "fixed", "compat": "official"}],
    "visionzip": [{"compat": "official"}, {"contextual": 1.0, "beta": 0.0}, {"contextual": 0.0}],
    "vispruner": [{"compat": "official"}, {"important_ratio": 1.0}, {"important_ratio": 0.0, "window": 1}],
    "dtd": [{"mode": "relative", "tau": 0.3}],
    "dycoke": [{"compat": "official"}],
    "clip_mean": [{"window": 2}],
    "cubes": [
        {"fill": "uniform", "density": "cosine"},
        {"fill": "random", "frames_per_cube": 2.0},
        {"tokens_per_cube": 3, "radius": 2},
    ],
}
"""Further settings of single methods; the defaults of all of them are always tested."""

CASES = [(name, hyper) for name in NAMES for hyper in ({}, *VARIANTS.get(name, []))]
EXACT_CASES = [(name, hyper) for name, hyper in CASES if get_method(name, **hyper).exact]
quick = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def label(case: object) -> str | None:
    return "-".join(f"{k}={v}" for k, v in case.items()) or "default" if isinstance(case, dict) else None


@pytest.mark.parametrize(("name", "hyper"), EXACT_CASES, ids=label)
@pytest.mark.parametrize("layout", [k for k in LAYOUTS if k != "medium"])
def test_every_count_is_exact(name, hyper, layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    method = get_method(name, **hyper)
    for keep in range(1, tokens.shape[1] + 1):
        kept = method.select(tokens, keep).keep
        assert kept.dtype == torch.bool and kept.shape == tokens.shape[:2]
        assert kept.sum(1).tolist() == [keep, keep]


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=label)
@quick
@given(data=st.data())
def test_selection_is_well_formed_and_independent_of_the_batch(name, hyper, data):
    layout = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))]
    tokens = make_tokens(layout, images=4, seed=data.draw(st.integers(0, 99)))
    s, n, _ = tokens.shape
    keep = data.draw(st.integers(1, n))
    method = get_method(name, keep=keep, **hyper)
    before = {k: v.clone() for k, v in vars(tokens).items() if isinstance(v, torch.Tensor)}
    whole = method.select(tokens, keep)
    check_form(whole, tokens)
    for field, value in before.items():
        assert torch.equal(getattr(tokens, field), value), f"{field} was written to"

    order = data.draw(st.permutations(range(s)))
    mixed = method.select(take(tokens, order), keep)
    assert torch.equal(mixed.keep, whole.keep[order])
    alone = method.select(take(tokens, [2]), keep)
    assert torch.equal(alone.keep, whole.keep[2:3])
    for field in ("features", "scores", "owner"):
        one, all_ = getattr(alone, field), getattr(whole, field)
        assert (one is None) == (all_ is None)
        if one is not None:
            torch.testing.assert_close(one, all_[2:3], rtol=1e-4, atol=1e-5)


def check_form(selection, tokens):
    s, n, d = tokens.shape
    keep = selection.keep
    assert keep.shape == (s, n) and keep.dtype == torch.bool
    if selection.scores is not None:
        assert selection.scores.shape == (s, n) and selection.scores.dtype == torch.float32
    if selection.owner is not None:
        owner, index = selection.owner, torch.arange(n).expand(s, n)
        assert owner.shape == (s, n) and owner.dtype == torch.long
        assert torch.equal(owner[keep], index[keep]), "a kept token goes into itself"
        assert ((owner == -1) | keep.gather(1, owner.clamp_min(0))).all(), "an owner is kept"
    assert (selection.features is None) == (selection.merge is None)
    if selection.features is not None:
        assert selection.features.shape == (s, n, d) and selection.features.dtype == tokens.features.dtype
        again = selection.merge(tokens.features)
        torch.testing.assert_close(again[keep], selection.features[keep])
        x, y = torch.randn(s, n, 3), torch.randn(s, n, 3)
        both = selection.merge(2 * x - 3 * y)
        torch.testing.assert_close(
            both, 2 * selection.merge(x) - 3 * selection.merge(y), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=label)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_accepted_and_scored_in_float32(name, hyper, dtype):
    tokens = make_tokens(LAYOUTS["newlines"], images=2, dtype=dtype)
    tokens.saliency = tokens.saliency.to(dtype)
    check_form(get_method(name, **hyper).select(tokens, 5), tokens)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=label)
def test_autocast_and_gradients_do_not_change_the_choice(name, hyper):
    tokens = make_tokens(LAYOUTS["medium"], images=2)
    method = get_method(name, **hyper)
    plain = method.select(tokens, 60)
    tokens.features.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = method.select(tokens, 60)
    assert torch.equal(plain.keep, under.keep)
    if under.features is not None:
        under.features[under.keep].sum().backward()
        assert tokens.features.grad is not None and tokens.features.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "hyper"), EXACT_CASES, ids=label)
@pytest.mark.parametrize(
    ("layout", "keep"), [("medium", 120), ("ragged", 20), ("video", 1), ("newlines", 24)]
)
def test_same_ops_whatever_the_batch_and_no_wait_for_the_device(name, hyper, layout, keep, monkeypatch):
    method, totals = get_method(name, **hyper), []
    groups = [make_tokens(LAYOUTS[layout], images=s) for s in (1, 8)]
    host_reads(monkeypatch)
    for tokens in groups:
        with Watch() as watch:
            method.select(tokens, keep)
        assert watch.waits == []
        totals.append(watch.total)
    assert totals[0] == totals[1]


def test_the_watch_sees_a_wait():
    x = torch.arange(3)
    for wait in (lambda: x.sum().item(), lambda: bool(x[1] > 0), lambda: x.nonzero(), lambda: x[x > 1]):
        with Watch() as watch:
            wait()
        assert watch.waits


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_needed_is_read(name):
    method = get_method(name)
    tokens = make_tokens(LAYOUTS["square"], images=2)
    needs = {need.split("@")[0] for need in method.needs}
    assert needs <= {f.name for f in dataclasses.fields(tokens)}
    full = method.select(tokens, 9)
    always = {
        "features",
        "grid",
        "kind",
        "coords",
        "ordinal",
        "layer",
        "num_layers",
        "memo",
        "text_mask",
        "merge_friendly",
    }
    for field in dataclasses.fields(tokens):
        if field.name not in always | needs:
            setattr(tokens, field.name, None)
    assert torch.equal(method.select(tokens, 9).keep, full.keep)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=label)
def test_hyper_parameters_round_trip_and_are_frozen(name, hyper):
    method = get_method(name, keep=0.5, **hyper)
    assert get_method(method.name, **method.hyper()) == method
    assert method.keep == 0.5 and hash(method) == hash(get_method(name, **method.hyper()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.keep = 0.1
    if not method.exact:
        assert method.num_kept(10, 32) is None
    elif method.stage == "input":
        assert method.num_kept(10) == 5
    else:
        assert 1 <= method.num_kept(10, 32) <= 5, "those that survive are at most the average"


@pytest.mark.parametrize("name", NAMES)
def test_bad_hyper_parameters_are_named(name):
    with pytest.raises(UnknownNameError, match="keap"):
        get_method(name, keap=0.5)
    for keep in (0, -1, 1.5, True, float("nan"), "x", None):
        with pytest.raises(BudgetError, match="keep="):
            get_method(name, keep=keep)
    for field in dataclasses.fields(method_class(name)):
        if isinstance(field.default, bool):
            continue
        with pytest.raises(TokenPruneError, match=field.name):
            get_method(name, **{field.name: "no such value"})
        if isinstance(field.default, float):
            with pytest.raises(TokenPruneError, match=field.name):
                get_method(name, **{field.name: float("nan")})


@pytest.mark.parametrize("name", NAMES)
def test_describes_itself(name):
    cls = method_class(name)
    assert cls.name == name and dataclasses.is_dataclass(cls)
    assert 10 <= len(cls.describe()) <= 100
    doc = cls.__doc__ or ""
    if "et al." in doc:
        assert re.search(r"arXiv:\d{4}\.\d{5}", doc)
    assert len(doc.splitlines()) > 1, "source, equations and deviations follow the first line"
