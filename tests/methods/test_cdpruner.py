"""CDPruner against determinants of subsets, and its text side with a tiny random CLIP of open_clip."""

from __future__ import annotations

import builtins
import itertools
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.errors import MissingExtraError, TokenPruneError
from tokenprune.kernels import unit
from tokenprune.methods import get_method
from tokenprune.methods._clip_text import load_tower

from .greedy_reference import determinants
from .make import LAYOUTS, make_tokens

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def relevance(visual: torch.Tensor, text: list[torch.Tensor], negative: bool = True) -> torch.Tensor:
    """(N, E), T vectors -> (N,) in [0, 1], pair by pair."""
    sign = -1 if negative else 1
    mean = []
    for v in visual.double():
        alike = [float(v @ u.double() / (v.norm() * u.double().norm())) for u in text]
        mean.append(sign * sum(alike) / len(alike))
    low, high = min(mean), max(mean)
    return torch.tensor([(m - low) / (high - low + 1e-6) for m in mean])


@quick
@given(st.integers(0, 10**6), st.data(), st.booleans(), st.sampled_from([None, 0.0, 0.5, 0.9]))
def test_agrees_with_determinants(seed, data, negative, theta):
    tokens = make_tokens(LAYOUTS["newlines"], images=2, seed=seed, dim=20)
    keep = data.draw(st.integers(1, 12))
    selection = get_method("cdpruner", negative=negative, theta=theta).select(tokens, keep)
    for i in range(2):
        words = [tokens.text[i, t] for t in range(6) if tokens.text_mask[i, t]]
        r = relevance(tokens.features[i], words, negative)
        torch.testing.assert_close(selection.scores[i], r, atol=1e-4, rtol=0)
        quality = r if theta is None else (theta * r / (2 * (1 - theta))).exp()
        order, close = determinants(unit(tokens.features[i]), quality, keep)
        assume(close > 1e-3)
        assert selection.keep[i].nonzero().flatten().tolist() == sorted(order)


def test_kept_sets_are_nested():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    masks = [get_method("cdpruner").select(tokens, k).keep for k in range(1, 37)]
    assert all(not (small & ~large).any() for small, large in itertools.pairwise(masks))


def test_without_a_question_only_diversity_is_left():
    tokens = make_tokens(LAYOUTS["square"], images=2, dim=40)
    tokens.text_mask[1] = False
    asked = get_method("cdpruner").select(tokens, 9)
    free = get_method("cdpruner", theta=0.0).select(tokens, 9).keep
    assert torch.equal(asked.keep[1], free[1]) and not torch.equal(asked.keep[0], free[0])
    tokens.text = None
    assert torch.equal(get_method("cdpruner").select(tokens, 9).keep, free)


def test_theta_goes_from_diversity_to_relevance():
    tokens = make_tokens(LAYOUTS["square"], images=3, dim=40)
    score = [
        (s.scores * s.keep).sum(1)
        for s in (get_method("cdpruner", theta=t).select(tokens, 9) for t in (0.0, 0.9, 0.999))
    ]
    assert (score[0] < score[1]).all() and (score[1] <= score[2]).all()
    top = get_method("cdpruner", theta=0.999).select(tokens, 9)
    assert torch.equal(top.keep, top.scores >= top.scores.topk(9, dim=1).values[:, -1:])


def test_padding_of_the_question_does_not_count():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    plain = get_method("cdpruner").select(tokens, 9)
    tokens.text = torch.cat(
        [tokens.text.masked_fill(~tokens.text_mask[..., None], 9.0), torch.ones(2, 3, 12)], 1
    )
    tokens.text_mask = torch.cat([tokens.text_mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    again = get_method("cdpruner").select(tokens, 9)
    assert torch.equal(plain.keep, again.keep)


# -- CLIP's text tower ---------------------------------------------------------------------------------------------

CONTEXT = 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny random CLIP, saved as a checkpoint, its model as open_clip loads it, and the name of the pair."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 15, "head_width": 5, "patch_size": 14},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    pooled = {
        **config,
        "vision_cfg": {**config["vision_cfg"], "width": 16, "head_width": 8, "attentional_pool": True},
    }
    pooled["vision_cfg"]["attn_pooler_heads"] = 2
    for name, made in (("tiny-clip", config), ("tiny-pooled", pooled)):
        (folder / f"{name}.json").write_text(json.dumps(made))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    for name in ("tiny-clip", "tiny-pooled"):
        model = open_clip.create_model(name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))  # norms and positions too
        torch.save(model.state_dict(), folder / f"{name}.pt")
    reference = open_clip.create_model("tiny-clip", pretrained=str(folder / "tiny-clip.pt")).eval()
    load_tower.cache_clear()
    yield reference, open_clip.get_tokenizer("tiny-clip"), f"open_clip:tiny-clip/{folder / 'tiny-clip.pt'}"
    load_tower.cache_clear()


@torch.no_grad()
def test_the_question_goes_through_clip(clip):
    """Widths match (15): patches through the model's own norm and projection, the question through encode_text."""
    model, tokenizer, spec = clip
    tokens = make_tokens(LAYOUTS["wide"], images=4, dim=12)
    method = get_method("cdpruner", text_tower=spec)
    assert method.needs == {"question", "vision_features"}
    got = method.relevance(tokens)
    for i in range(4):
        visual = model.visual.ln_post(tokens.vision_features[i]) @ model.visual.proj
        text = model.encode_text(tokenizer([tokens.question[i]]))
        torch.testing.assert_close(got[i], relevance(visual, [text[0]]).float(), atol=1e-4, rtol=0)
    kept = method.select(tokens, 7).keep
    assert torch.equal(method.select(tokens, 7).keep, kept) and kept.sum(1).tolist() == [7] * 4
    tokens.text = None
    assert torch.equal(method.select(tokens, 7).keep, kept), "the model's own embeddings are not read"


@torch.no_grad()
def test_long_questions_go_in_pieces(clip):
    model, tokenizer, spec = clip
    tokens = make_tokens(LAYOUTS["wide"], images=3)
    words = " ".join(f"red circle {i}" for i in range(9))
    tokens.question = ["what is it?", words, ""]
    got = get_method("cdpruner", text_tower=spec).relevance(tokens)
    ids = tokenizer.encode(words)
    room = CONTEXT - 2
    assert len(ids) > room
    text = []
    for i in range(0, len(ids), room):
        piece = [tokenizer.sot_token_id, *ids[i : i + room], tokenizer.eot_token_id]
        row = torch.tensor([piece + [0] * (CONTEXT - len(piece))])
        text.append(model.encode_text(row)[0])
    assert len(text) == math.ceil(len(ids) / room) > 1
    visual = model.visual.ln_post(tokens.vision_features[1]) @ model.visual.proj
    torch.testing.assert_close(got[1], relevance(visual, text).float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(got[2], torch.ones(33))
    tokens.question = ["", "", ""]
    assert torch.equal(get_method("cdpruner", text_tower=spec).relevance(tokens), torch.ones(3, 33))


def test_a_tower_that_does_not_fit_is_named(clip):
    _, _, spec = clip
    tokens = make_tokens(LAYOUTS["line"], dim=30)
    with pytest.raises(TokenPruneError, match="15 features.*33"):
        get_method("cdpruner", text_tower=spec).select(tokens, 3)
    with pytest.raises(TokenPruneError, match="pooling head"):
        get_method("cdpruner", text_tower=spec.replace("tiny-clip", "tiny-pooled")).select(tokens, 3)
    with pytest.raises(TokenPruneError, match="could not be loaded"):
        get_method("cdpruner", text_tower="open_clip:tiny-clip/no-such-file").select(tokens, 3)
    tokens.question = None
    with pytest.raises(TokenPruneError, match="processor"):
        get_method("cdpruner", text_tower=spec).select(tokens, 3)


def test_without_open_clip_the_extra_is_named(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "open_clip":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    tokens = make_tokens(LAYOUTS["line"])
    with pytest.raises(MissingExtraError, match=r"tokenprune-vlm\[towers\]"):
        get_method("cdpruner", text_tower="open_clip:ViT-B-32/nowhere").select(tokens, 3)


def test_what_is_refused():
    towers = ["clip", "open_clip:ViT-B-32", "open_clip:/openai", 3]
    for hyper in ({"theta": 1.0}, {"theta": -0.1}, {"theta": True}, *({"text_tower": t} for t in towers)):
        with pytest.raises(TokenPruneError, match=next(iter(hyper))):
            get_method("cdpruner", **hyper)
    with pytest.raises(TokenPruneError, match="negative"):
        get_method("cdpruner", negative=1)
