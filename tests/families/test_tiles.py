"""Which runs of placeholders are tiles of one picture, by the marks of each family's own processor."""

from __future__ import annotations

import pytest
import torch

from tests.fixed import Fixed
from tests.tiny.base import FAKE_IMAGE, ROW_COL, pixels, text_ids
from tests.tiny.models import FAMILIES, fixed_mask
from tests.tiny.reference import reference_generate
from tests.tiny.tiled import SIDE
from tokenprune import patch_model
from tokenprune.families.cohere import AyaVision, Cohere2Vision
from tokenprune.families.deepseek_ocr2 import page
from tokenprune.families.got_ocr2 import GotOcr2
from tokenprune.families.granite_docling import GraniteDocling
from tokenprune.families.idefics2 import Idefics2
from tokenprune.families.llama4 import Llama4
from tokenprune.families.ovis2 import Ovis2

IMAGE, BEGIN, END, WHOLE, FIRST, SECOND, BREAK, WORD = 5, 7, 8, 12, 13, 15, 14, 90
N = 4
TILE = [IMAGE] * N
SPLIT = [FIRST, *TILE, SECOND, *TILE, WHOLE, *TILE]  # two tiles, then the whole picture


def numbers(family, ids: list[int]) -> list[int]:
    """What the family says of every run of N placeholders."""
    places = [i for i, t in enumerate(ids) if t == IMAGE]
    starts = places[::N]
    return family().same_image(torch.tensor(ids), starts, [N] * len(starts))


@pytest.mark.parametrize("family,ids,wanted", [
    (AyaVision, [BEGIN, *SPLIT, END, BEGIN, *SPLIT, END], [0, 0, 0, 1, 1, 1]),
    (AyaVision, [BEGIN, WHOLE, *TILE, END, WORD, BEGIN, *SPLIT, END], [0, 1, 1, 1]),
    (AyaVision, [BEGIN, WHOLE, *TILE, END, BEGIN, WHOLE, *TILE, END], [0, 1]),
    (Llama4, [BEGIN, *TILE, FIRST, *TILE, SECOND, WHOLE, *TILE, END, BEGIN, WHOLE, *TILE, END], [0, 0, 0, 1]),
    (Cohere2Vision, [BEGIN, *[*TILE, BREAK] * 3, END, BEGIN, *TILE, BREAK, END], [0, 0, 0, 1]),
    (Cohere2Vision, [BEGIN, *TILE, BREAK, END, BEGIN, *[*TILE, BREAK] * 3, END], [0, 1, 1, 1]),
    (Ovis2, [BEGIN, *TILE, FIRST, *TILE, SECOND, *TILE, END, BEGIN, *TILE, FIRST, END], [0, 0, 0, 1]),
    (GotOcr2, [BEGIN, *TILE * 3, END, BEGIN, *TILE, END], [0, 0, 0, 1]),
    (GraniteDocling, [BEGIN, FIRST, *TILE, WORD, BEGIN, *SPLIT, BEGIN], [0, 1, 1, 1]),
    (GraniteDocling, [BEGIN, *SPLIT, BEGIN, FIRST, *TILE, WORD, BEGIN, FIRST, *TILE], [0, 0, 0, 1, 2]),
    (Idefics2, [BEGIN, *TILE, BEGIN, *TILE, BEGIN], [0, 1]),
    (Idefics2, [BEGIN, *[*TILE, BEGIN] * 5, WORD, BEGIN, *TILE, BEGIN], [0, 0, 0, 0, 0, 1]),
    (Idefics2, [BEGIN, *TILE, BEGIN, WORD, BEGIN, *[*TILE, BEGIN] * 10], [0, *[1] * 5, *[2] * 5]),
])  # fmt: skip
def test_marks_say_what_is_one_picture(family, ids, wanted):
    assert numbers(family, ids) == wanted


@pytest.mark.skipif("granite_docling" not in FAMILIES, reason="a newer transformers has it")
@torch.no_grad()
def test_the_fine_connector_gives_a_tile_four_times_as_many_tokens():
    model = FAMILIES["granite_docling"].build()
    ids = torch.tensor([[*text_ids(4, "a"), FAKE_IMAGE, ROW_COL, *[IMAGE] * 64, *text_ids(6, "b")]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels(1, 1, 3, SIDE, SIDE, seed="fine"),
        "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool),
        "tile_fine_mask": torch.ones(1, dtype=torch.bool),
    }
    dropped = torch.zeros_like(ids, dtype=torch.bool)
    dropped[ids == IMAGE] = ~fixed_mask(64, 0)
    tokens, steps = reference_generate(model, inputs, dropped, steps=2)
    with patch_model(model, Fixed()) as handle:
        out = model.generate(
            **inputs, max_new_tokens=2, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        [image] = handle.report.images
    assert image.grid == (1, 8, 8) and image.before == 64
    assert torch.equal(out.sequences[:, -2:], tokens)
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(out.logits, steps)) < 1e-4


def test_a_page_may_have_more_tokens_than_its_crops():
    coords = page(2 * 144 + 256 + 1, 2, 144).coords
    assert torch.bincount(coords[:, 0]).tolist() == [256 + 1, 144, 144]
    assert coords[:, 0].unique_consecutive().tolist() == [1, 2, 0] and coords[-1].tolist() == [0, 0, -1, -1]
