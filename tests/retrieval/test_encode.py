"""Towers of timm and open_clip as instance tokens: against their own outputs, and attention written out in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.errors import (
    BudgetError,
    InputError,
    TokenPruneError,
    UnknownNameError,
    UnsupportedModelError,
)
from tokenprune.kernels import unit
from tokenprune.retrieval import Encoder, Features, encode
from tokenprune.retrieval.readers import find_reader, read

from ..methods.test_instance import A, T
from ..towers.make import PATCHES, SIDE, WIDTH, blocks, pictures, prefix, tower

NAMES = [
    "timm", "timm-registers-mean", "timm-attention-pool", "deit", "open_clip", "open_clip-own-attention",
    "open_clip-mean",
]  # fmt: skip
CLASSLESS = ("timm-attention-pool",)


def attention_in_full(model, name: str, pixels: torch.Tensor, monkeypatch) -> torch.Tensor:
    """(B, L, L) of the last block, mean over heads: torch's own weights, or what its fused attention was given."""
    found: list = []
    block = blocks(model)[-1]
    if isinstance(block.attn, torch.nn.MultiheadAttention):
        hook = block.attn.register_forward_pre_hook(lambda m, args: found.append(args[0]))
        model(pixels)
        hook.remove()
        return block.attn(found[0], found[0], found[0], need_weights=True, average_attn_weights=True)[1]
    real = torch.nn.functional.scaled_dot_product_attention

    def record(q, k, v, *args, **kwargs):
        if q.shape[-2] == k.shape[-2] > 1:  # not a pooling head's
            found.append((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1))
        return real(q, k, v, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    model(pixels)
    return found[-1]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_saliency_is_what_the_last_block_looks_at(name, monkeypatch):
    model = tower(name)
    _, found = read(*find_reader(model), pictures(3), attention=True)
    full, first = attention_in_full(model, name, pictures(3), monkeypatch), prefix(name)
    expected = full.mean(1) if name in CLASSLESS else full[:, 0]
    assert found.shape == (3, PATCHES)
    torch.testing.assert_close(found, expected[:, first:], rtol=1e-4, atol=1e-6)
    assert found.std() > 1e-4
    assert not any(m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_tokens_are_the_towers_own():
    model = tower("open_clip")  # gives its normed patches out
    tokens, _ = read(*find_reader(model), pictures(2), attention=False)
    torch.testing.assert_close(tokens[:, 1:], model(pictures(2))[1])
    model = tower("timm")
    tokens, _ = read(*find_reader(model), pictures(2), attention=False)
    torch.testing.assert_close(model.head(model.fc_norm(tokens[:, 0])), model(pictures(2)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 4, "all"])
def test_encode_gives_unit_tokens_in_half_precision(name, k):
    model = tower(name).train()
    try:
        several = encode(model, pictures(5), k, batch=2)
        assert model.training
    finally:
        model.eval()
    count = PATCHES if k == "all" else k
    assert several.shape == (5, count, WIDTH) and several.dtype == torch.float16
    torch.testing.assert_close(several.float().norm(dim=2), torch.ones(5, count), rtol=0, atol=2e-3)
    torch.testing.assert_close(several, encode(model, pictures(5), k, batch=5), rtol=0, atol=2e-3)
    single = encode(model, pictures(5)[3:4], k)[0]
    torch.testing.assert_close(several[3], single, rtol=0, atol=2e-3)


def test_pictures_come_as_files_images_arrays_or_pixels(tmp_path):
    encoder = Encoder(tower("timm"), 4)
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    one = encoder.encode(image)
    assert one.shape == (4, WIDTH)
    assert torch.equal(encoder.encode([tmp_path / "a.png", np.asarray(image)]), torch.stack([one, one]))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.equal(encoder.encode(((pixels - 0.5) / 0.5)[None])[0], one)
    wide = image.resize((3 * SIDE, SIDE)).crop((SIDE, 0, 2 * SIDE, SIDE))
    assert torch.equal(encoder.encode(image.resize((3 * SIDE, SIDE))), encoder.encode(wide))
    own = Encoder(tower("timm"), 4, transform=lambda i: torch.zeros(3, SIDE, SIDE)).encode(image)
    assert not torch.equal(own, one)


def test_the_tower_says_how_its_pixels_were_normalised():
    from ..towers.make import timm_tower

    image = Image.fromarray(np.full((SIDE, SIDE, 3), 128, dtype=np.uint8))
    model = timm_tower()
    model.pretrained_cfg = {"mean": (128 / 255,) * 3, "std": (0.1,) * 3}
    torch.testing.assert_close(
        Encoder(model)._transform(image), torch.zeros(3, SIDE, SIDE), rtol=0, atol=1e-5
    )


def given(rows=T, weights=A) -> Features:
    return Features(unit(torch.tensor([rows])), torch.tensor([weights]), {})


@pytest.mark.parametrize(("aggregate", "expected"), [
    (True, [(0.9892, 0.1438, 0.0294), (0.0543, 0.9926, 0.1086), (0.3473, 0.3473, 0.8711)]),
    (False, [(0.9939, 0.1104, 0), (0, 1, 0), (0.5774, 0.5774, 0.5774)]),
])  # fmt: skip
def test_numbers_worked_out_by_hand(aggregate, expected):
    """Seeds 1, 3 and 7 by attention, in raster order."""
    found = given().reduced(3, "attention", aggregate)
    torch.testing.assert_close(found[0].float(), torch.tensor(expected), rtol=0, atol=5e-4)


def test_all_tokens_are_the_patches():
    assert torch.equal(given().reduced("all"), given().patches.half())
    assert torch.equal(given().reduced(99), given().patches.half())


def test_single_vectors():
    model = tower("timm")
    found = Encoder(model).features(pictures(2))
    with torch.no_grad():
        tokens = model.forward_features(pictures(2))
    torch.testing.assert_close(found.singles["class"], unit(tokens[:, 0]))
    torch.testing.assert_close(found.singles["mean"], unit(tokens[:, 1:].mean(1)))
    gem = tokens[:, 1:].clamp_min(1e-6).pow(3).mean(1).pow(1 / 3)
    torch.testing.assert_close(found.singles["gem"], unit(gem))
    assert set(Encoder(tower("timm-attention-pool")).features(pictures(1)).singles) == {"mean", "gem"}
    assert math.isclose(Encoder(model, 4).spec.bytes, 2 * 5 * WIDTH)


def test_an_open_clip_model_is_taken_for_its_visual():
    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = tower("open_clip")

    assert torch.equal(encode(Clip(), pictures(2), 3), encode(tower("open_clip"), pictures(2), 3))


def test_what_is_refused():
    model = tower("timm")
    for error, make in (
        (UnsupportedModelError, lambda: Encoder(torch.nn.Linear(2, 2))),
        (UnsupportedModelError, lambda: Encoder(tower("clip"))),
        (BudgetError, lambda: Encoder(model, 0)),
        (BudgetError, lambda: Encoder(model, True)),
        (BudgetError, lambda: Encoder(model).encode(pictures(1), "some")),
        (TokenPruneError, lambda: Encoder(model, seeds="best")),
        (UnknownNameError, lambda: Encoder(model, single="clas")),
        (TokenPruneError, lambda: Encoder(tower("timm-attention-pool"), single="class")),
        (InputError, lambda: Encoder(model, batch=0)),
        (InputError, lambda: Encoder(model).encode([])),
        (InputError, lambda: Encoder(model).encode("nothing-there.png")),
    ):
        with pytest.raises(error):
            make()
