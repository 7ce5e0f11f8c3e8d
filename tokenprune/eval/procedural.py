"""The procedural suites of `tokenprune.zoo` as suites of the runner: drawn when needed, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..chat import Medium
from ..errors import InputError
from ..media import Clip
from .suite import Sample, Suite, make_suite


@dataclass(frozen=True)
class Drawn:
    """A procedural picture or clip, drawn when it is needed."""

    name: str
    draw: Callable[[], Medium]

    def load(self) -> Medium:
        return self.draw()


def scenes(split: str = "test", n: int = 900, seed: int = 0) -> Suite:
    """The drawn scenes of `tokenprune.zoo`: nine kinds of question, answers of one word or number."""
    from ..zoo import scenes as zoo

    found = zoo.suite(split, n, seed)
    samples = _samples(found, lambda s: s.image, lambda s: s.id.split("-")[0])
    return make_suite("scenes", samples, metric="exact", max_new_tokens=16, about=_about(split, n, seed))


def documents(split: str = "test", n: int = 300, seed: int = 0, kinds: Sequence[str] | None = None) -> Suite:
    """The drawn pages: transcriptions of a page or a line, and values by their key. Every page comes once.

    kinds: of these `n` only questions of these kinds: 40 % are `page`, 30 % `line` and 30 % `value`.
    """
    from ..zoo import documents as zoo

    unknown = set(kinds or ()) - set(zoo.SHARES)
    if unknown:
        raise InputError(f"suite documents: no kind {sorted(unknown)[0]!r}; there are {', '.join(zoo.SHARES)}")
    found = [s for s in zoo.suite(split, n, seed) if kinds is None or s.kind in kinds]
    about = _about(split, n, seed) | ({} if kinds is None else {"kinds": list(kinds)})
    return make_suite(
        "documents", _samples(found, lambda s: s.image, lambda s: s.id), metric="anls", max_new_tokens=88,
        also=("exact", "cer", "edit"), about=about,
    )  # fmt: skip


def clips(split: str = "test", n: int = 280, seed: int = 0) -> Suite:
    """The drawn clips of sixteen frames: seven kinds of question about what happens. Every clip comes once."""
    from ..zoo import clips as zoo

    samples = _samples(
        zoo.suite(split, n, seed), lambda s: Clip.of_frames(s.frames, s.fps, s.id), lambda s: s.id
    )
    return make_suite(
        "clips", samples, metric="exact", max_new_tokens=16, video=True, about=_about(split, n, seed)
    )


def _samples(
    found: Sequence[Any], draw: Callable[[Any], Medium], group: Callable[[Any], str]
) -> list[Sample]:
    return [
        Sample(s.id, s.question, (s.answer,), Drawn(s.id, lambda s=s: draw(s)), group(s), s.kind)
        for s in found
    ]


def _about(split: str, n: int, seed: int) -> dict[str, Any]:
    return {"split": split, "n": n, "seed": seed}


BUILT_IN: dict[str, Callable[..., Suite]] = {"scenes": scenes, "documents": documents, "clips": clips}
