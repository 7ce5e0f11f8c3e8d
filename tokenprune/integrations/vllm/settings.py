"""What a server was asked to keep, and what follows from it for one picture: integers only, neither torch nor vLLM.

vLLM's front end asks for counts before a feature exists, in a process without a GPU; its workers ask again. Both read
the same JSON, so they cannot disagree. A grid is (t, h, w) in tokens as the language model counts them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ... import budget as _budget
from ...errors import BudgetError, InputError, neighbours

KEY = "tokenprune"
"""Name of the settings in the model's config, and of a request's own in `mm_processor_kwargs`."""
MODALITIES = ("image", "video")
Grid = tuple[int, int, int]

EXAMPLE = '{"method": "divprune", "keep": 0.25, "video": {"method": "evs", "keep": 0.1}}'


@dataclass(frozen=True)
class Choice:
    """The method of one modality by name, with numbers only: what can be written as JSON."""

    method: str
    keep: float | int = 0.25
    hyper: Mapping[str, Any] = field(default_factory=dict)

    def num_kept(self, grid: Grid) -> int:
        """Tokens that stay of an image or video, from its grid alone."""
        return _budget.count(self.keep, math.prod(grid))

    def fingerprint(self) -> str:
        """Enters the keys of vLLM's caches, which otherwise know the picture only; equal settings give equal text."""
        text = json.dumps([self.method, self.keep, dict(self.hyper)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def per_frame(grid: Grid, kept: int) -> list[int]:
    """`kept` over the frames of a clip, evenly: floor or ceil of the mean, as `progressive` spreads it.

    Needed where text stands between the frames, so that the places of all tokens are known before any is chosen.
    """
    t = grid[0]
    ends = [(2 * kept * (i + 1) + t) // (2 * t) for i in range(t)]
    return [b - a for a, b in zip([0, *ends], ends)]


@dataclass(frozen=True)
class Settings:
    """One `Choice` a modality."""

    image: Choice
    video: Choice

    def of(self, modality: str) -> Choice:
        """The choice for "image" or "video"."""
        return self.video if modality == "video" else self.image

    @classmethod
    def read(cls, value: Any) -> Settings:
        """From the JSON of `hf_overrides["tokenprune"]`; raises `InputError` or `BudgetError` that say what is wrong.

        Keys next to `method` and `keep` are the method's own hyper-parameters. `image` and `video` change what they
        name for their modality; another method there starts from its own defaults.
        """
        common = _mapping(value, "the settings")
        own = {m: _mapping(common.pop(m, {}), m) for m in MODALITIES}
        return cls(**{m: _choice({**_inherited(common, own[m]), **own[m]}, m) for m in MODALITIES})

    def asked(self, value: Any) -> Settings:
        """The same with what one request asks for: {"keep": 0.5} or {"video": {"keep": 0.1}}, budgets only."""
        if value is None:
            return self
        common = _mapping(value, "a request")
        own = {m: _mapping(common.pop(m, {}), m) for m in MODALITIES}
        changed = {}
        for modality in MODALITIES:
            wanted = {**common, **own[modality]}
            if unknown := set(wanted) - {"keep"}:
                raise InputError(f"tokenprune: a request may set keep only, not {', '.join(sorted(unknown))}")
            keep = _budget.check_keep(wanted.get("keep", self.of(modality).keep))
            changed[modality] = replace(self.of(modality), keep=keep)
        return Settings(**changed)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"tokenprune: {what} must be a JSON object like {EXAMPLE}, not {value!r}")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise InputError(f"tokenprune: {what} has the key {wrong[0]!r}, which is no text")
    return dict(value)


def _inherited(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if own.get("method", common.get("method")) == common.get("method"):
        return common
    return {key: common[key] for key in ("keep",) if key in common}


def _choice(values: dict[str, Any], modality: str) -> Choice:
    method = values.pop("method", None)
    if not isinstance(method, str):
        near = [key for key in values if neighbours(key, ["method"]).startswith("did")]
        hint = f" (there is {near[0]!r})" if near else ""
        raise InputError(f"tokenprune: no method for {modality}{hint}; say for example {EXAMPLE}")
    try:
        keep = _budget.check_keep(values.pop("keep", 0.25))
        json.dumps(values)
    except BudgetError as error:
        raise BudgetError(f"tokenprune, {modality}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"tokenprune, {modality}: hyper-parameters must be plain JSON ({error})") from None
    return Choice(method, keep, values)
