"""`explain(model)`: what was found in a model, what it can offer to methods, and which methods it can serve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .errors import TokenPruneError
from .families import SUPPORTED
from .hooks.parts import Parts, find_parts
from .hooks.question import QuestionFinder
from .methods import get_method, list_methods
from .patching import check_method


@dataclass
class Explanation:
    """Plain facts; `str()` for people, `to_dict()` for programs."""

    model: str
    family: str
    tested: bool
    text_model: str
    layers: int
    states: int  # of the layers: linear attention or convolution, which carry a state from token to token
    cut_below: int
    attention: str
    placeholders: dict[str, int]
    videos: str
    tower: str | None
    projector: str | None
    saliency: str
    question: str
    methods: dict[str, str]  # name -> "yes" or the reason why not

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        ids = ", ".join(f"{kind} {i}" for kind, i in self.placeholders.items())
        known = (
            "under the full set of behaviour tests"
            if self.tested
            else "not under test; the general rules apply"
        )
        rows = {
            "model": f"{self.model} ({self.family}: {known})",
            "text model": f"{self.text_model}, {self.layers} layers, cuts below layer {self.cut_below}",
            "attention": f"{self.attention}, left as it is",
            "images": f"placeholder tokens: {ids}",
            "videos": self.videos,
            "vision tower": f"{self.tower or 'not found'}, projector {self.projector or 'not found'}",
            "saliency": self.saliency,
            "question": self.question,
        }
        if self.states:
            rows["text model"] += f"; {self.states} layers carry a state and have no attention to look at"
        lines = [f"{label:<13} {text}" for label, text in rows.items()]
        lines += [
            f"{name:<13} {'works' if why == 'yes' else 'no: ' + why}" for name, why in self.methods.items()
        ]
        return "\n".join(lines)


def explain(model: nn.Module, processor: Any = None) -> Explanation:
    """Look at a model without changing it. Raises `UnsupportedModelError` where it cannot be patched at all."""
    parts = find_parts(model)
    return Explanation(
        model=type(model).__name__,
        family=parts.config.model_type,
        tested=parts.config.model_type in SUPPORTED,
        text_model=type(parts.text).__name__,
        layers=parts.num_layers,
        states=len(parts.states),
        cut_below=parts.first_shared,
        attention=getattr(parts.text_config, "_attn_implementation", None) or "unknown",
        placeholders=parts.placeholders,
        videos=_videos(parts, processor),
        tower=type(parts.tower).__name__ if parts.tower is not None else None,
        projector=type(parts.projector).__name__ if parts.projector is not None else None,
        saliency=_saliency(parts),
        question=QuestionFinder(parts.model.config, processor).rule,
        methods={name: _verdict(name, parts) for name in list_methods()},
    )


def _videos(parts: Parts, processor: Any) -> str:
    if parts.family.frame_label is not None:
        told = "frames are images to the model, made one video by the words before them"
        return told if processor is not None else f"{told}; without a processor they stay images"
    encoded = hasattr(parts.composite, "get_video_features") or parts.family.one_encoder
    if "video" not in parts.placeholders or not encoded:
        return "none"
    return "each frame by itself" if parts.family.frames_apart else "one each"


def _saliency(parts: Parts) -> str:
    if why := parts.withheld("saliency"):
        return f"none: {why}"
    layer = parts.family.saliency_layer(parts.composite, len(parts.blocks or ()))
    what = "row of the class token" if parts.has_cls else "mean attention received"
    return f"{what}, block {layer} of {len(parts.blocks or ())}"


def _verdict(name: str, parts: Parts) -> str:
    try:
        check_method(get_method(name), parts)
    except TokenPruneError as error:
        return str(error)
    return "yes"
