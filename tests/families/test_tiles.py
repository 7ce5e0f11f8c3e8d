"""Which runs of placeholders are tiles of one picture, by the marks of each family's own processor."""

from __future__ import annotations

import pytest
import torch

from tokenprune.families.cohere import AyaVision, Cohere2Vision
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
