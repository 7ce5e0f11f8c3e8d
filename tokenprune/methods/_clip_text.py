"""CLIP's two projections for a question and for patch features, from open_clip."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtraError, TokenPruneError

PREFIX = "open_clip:"


def check_tower(spec: object) -> tuple[str, str]:
    """ "open_clip:<model>/<pretrained>" -> (model, pretrained), or an error that names the field."""
    if isinstance(spec, str) and spec.startswith(PREFIX):
        model, _, pretrained = spec.removeprefix(PREFIX).partition("/")
        if model and pretrained:
            return model, pretrained
    raise TokenPruneError(f"text_tower={spec!r}: 'open_clip:<model>/<pretrained tag or file>', or None")


class ClipPair(nn.Module):
    """The text tower of one CLIP model, and what its vision tower does last."""

    def __init__(self, model: Any, tokenizer: Any, spec: str) -> None:
        super().__init__()
        visual = getattr(model, "visual", None)
        norm, projection = getattr(visual, "ln_post", None), getattr(visual, "proj", None)
        if norm is None or projection is None or getattr(visual, "attn_pool", None) is not None:
            raise TokenPruneError(
                f"text_tower={spec!r}: its vision tower ends in a pooling head, not in the norm and projection "
                "that can be applied to single patches"
            )
        if not all(hasattr(tokenizer, name) for name in ("encode", "sot_token_id", "eot_token_id")):
            raise TokenPruneError(f"text_tower={spec!r}: only CLIP's own tokenizer is supported")
        self.norm, self.projection = norm, nn.Parameter(projection.detach())
        model.visual = None  # the blocks of the vision tower are not used
        self.text, self.tokenizer, self.spec = model, tokenizer, spec
        self.limit: int = model.context_length

    def project(self, features: Tensor) -> Tensor:
        """(S, N, C) tower states -> (S, N, E) in the space of the text, float32."""
        width = self.projection.shape[0]
        if features.shape[2] != width:
            raise TokenPruneError(
                f"text_tower={self.spec!r} projects {width} features of a patch, and this model's tower has "
                f"{features.shape[2]}: it is not the CLIP model that this one was built on"
            )
        return self.norm(features.float()) @ self.projection

    def pieces(self, question: str) -> list[list[int]]:
        """Token ids in pieces of at most the context length, begin and end marks in each."""
        ids, room = self.tokenizer.encode(question), self.limit - 2
        begin, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        return [[begin, *ids[i : i + room], end] for i in range(0, len(ids), room)]

    def encode(self, questions: list[str]) -> tuple[Tensor, Tensor]:
        """S strings -> (S, T, E) vectors of their pieces, (S, T) which exist; equal questions are encoded once."""
        device = self.projection.device
        known = {question: self.pieces(question) for question in questions}
        most = max(1, *(len(p) for p in known.values()))
        ids = torch.zeros(len(known), most, self.limit, dtype=torch.long)
        for i, pieces in enumerate(known.values()):
            for j, piece in enumerate(pieces):
                ids[i, j, : len(piece)] = torch.tensor(piece)
        there = torch.tensor([[j < len(p) for j in range(most)] for p in known.values()])
        vectors = self.text.encode_text(ids.flatten(0, 1).to(device)).float().unflatten(0, ids.shape[:2])
        place = {question: i for i, question in enumerate(known)}
        rows = torch.tensor([place[question] for question in questions], device=device)
        return vectors.index_select(0, rows), there.to(device).index_select(0, rows)


@functools.lru_cache(maxsize=2)
def load_tower(spec: str, device: str) -> ClipPair:
    """Load a CLIP model by open_clip, in float32; kept for the next call.

    Raises:
        MissingExtraError: open_clip is not installed.
        TokenPruneError: open_clip does not know or cannot load it, or it is no CLIP of the usual form.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError.of("open_clip", "towers") from error
    name, pretrained = check_tower(spec)
    try:
        model: Any = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises what its many loaders raise
        raise TokenPruneError(f"text_tower={spec!r} could not be loaded: {error}") from error
    return ClipPair(model, tokenizer, spec).to(device).eval().requires_grad_(False)
