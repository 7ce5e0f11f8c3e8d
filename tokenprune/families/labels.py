"""Videos that reach a model as images: only the words before each frame tell them from several images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import Tensor

READ = 64  # tokens before a frame; a label has about 15


def labelled_clips(
    ids: Tensor, spans: Sequence[tuple[int, int]], label: str, read: Callable[[Tensor], str]
) -> list[int | None]:
    """Number of the clip that each of several images belongs to, None for what is no frame.

    Args:
        ids: (L,) one row of the prompt.
        spans: first and one past the last token of each image, in order.
        label: pattern of a frame's label. A first group in it is the frame's number, from 1 in each clip.
        read: token ids to text, special tokens included.

    A clip begins at an image right behind a label and goes on while nothing but the next label, white space and
    marks without white space (`</img>`) stand between two images.
    """
    first, more = re.compile(rf"{label}\S*\Z"), re.compile(rf"\S*\s*{label}\S*")
    out: list[int | None] = []
    clips, number, end = 0, 0, 0
    for start, stop in spans:
        text = read(ids[max(end, start - READ) : start])
        follows = more.fullmatch(text) if out and out[-1] is not None and start - end <= READ else None
        found = follows or first.search(text)
        number_here = int(found.group(1)) if found and found.re.groups else number + 1
        if found is None:
            out.append(None)
        else:
            clips += not (follows and number_here == number + 1)
            out.append(clips - 1)
        number, end = number_here, stop
    return out
