"""The worker's side: vLLM's model classes choose among their visual features, with positions where those are M-RoPE.

Mixins, put before vLLM's own class. `Choosing` is enough where positions are counted anew over what is left;
`MRopeChoosing` keeps the original ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...families import family_of
from ...families.shapes import Shape, flat_shape, grid_shape
from . import positions
from .choose import Chooser
from .cpu import mend_runner
from .positions import COLUMNS
from .processor import counts_of, field_of, quotas_of
from .serving import served
from .settings import MODALITIES
from .start import settings_of

Chosen = tuple[Tensor, Tensor, tuple[int, int, int]]  # (K, W) rows, their (K,) indices, grid


class Choosing:
    """Chooses among the features of each item as its count says, which came with it from the front end."""

    apart: ClassVar[bool] = False  # as the processor has it
    supports_tower_connector_lora = (
        False  # adapters there are laid out from the prompt, where tokens are gone
    )

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = vllm_config.model_config.hf_config
        settings, friendly = settings_of(config), family_of(config).merge_friendly
        self.choosers = {m: Chooser(served(settings.of(m)), friendly) for m in MODALITIES}
        self.counts: dict[str, list[list[int]]] = {}

    def take_counts(self, kwargs: dict[str, Any]) -> None:
        """Remove our fields from a call's items and remember them for it."""
        fields = {m: kwargs.pop(field_of(m), None) for m in MODALITIES}
        self.counts = {m: counts_of(field) for m, field in fields.items() if field is not None}

    def shape_of(self, modality: str, grid: tuple[int, int, int], n: int) -> Shape:
        """Where an item's n features lie."""
        t, h, w = grid
        return grid_shape(t, h, w) if t * h * w == n else flat_shape(n)

    def choose(self, modality: str, features: Sequence[Tensor], width: int | None = None) -> list[Chosen]:
        """Of each item's (N, W) features those that stay."""
        out = []
        for item, (t, h, w, kept) in zip(features, self.counts[modality]):
            grid = (t, h, w)
            shape = self.shape_of(modality, grid, item.shape[0])
            quotas = quotas_of(self.apart, modality, grid, kept)
            kind: Any = modality
            rows, index = self.choosers[modality](item, shape, kind, quotas, width)
            out.append((rows, index, grid))
        return out


class CompactChoosing(Choosing):
    """For models that count positions over the tokens of the prompt: what is left is counted, without gaps."""

    def embed_multimodal(self, **kwargs: Any) -> Any:
        self.take_counts(kwargs)
        features = super().embed_multimodal(**kwargs)
        todo = [(m, len(counts)) for m, counts in self.counts.items()]
        out: list[Tensor] = []
        for modality, count in sorted(todo, key=lambda pair: order_of(pair[0], kwargs)):
            items = features[len(out) : len(out) + count]
            out += [rows for rows, _, _ in self.choose(modality, items)]
        return tuple(out)


def order_of(modality: str, kwargs: dict[str, Any]) -> int:
    """vLLM's classes answer in the order in which the modalities' fields stand in the call."""
    return min((i for i, key in enumerate(kwargs) if ("video" in key) == (modality == "video")), default=0)


class MRopeChoosing(Choosing):
    """For M-RoPE models: features take their original positions along, and the runner's hook puts them in place."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        mend_runner()

    @property
    def feature_width(self) -> int:
        """Columns of a feature that methods see."""
        return self.config.vision_config.out_hidden_size

    def factors(self, modality: str, item_input: Any, count: int) -> list[float]:
        """Positions between two frames, for each item."""
        return [1.0] * count

    def embed_multimodal(self, **kwargs: Any) -> Any:
        self.take_counts(kwargs)
        return super().embed_multimodal(**kwargs)

    def placed(self, modality: str, features: Sequence[Tensor], item_input: Any) -> tuple[Tensor, ...]:
        """Rows that stay with the columns of `positions` behind them."""
        out = []
        chosen = self.choose(modality, features, self.feature_width)
        for (rows, index, grid), factor in zip(chosen, self.factors(modality, item_input, len(chosen))):
            where = self.local(modality, grid, factor).to(rows.device)[index]
            out.append(torch.cat([rows, positions.pack(where, rows.dtype)], 1))
        return tuple(out)

    def local(self, modality: str, grid: tuple[int, int, int], factor: float) -> Tensor:
        """(N, 4) positions inside a run of places."""
        return positions.local(grid, factor)

    # vLLM calls these two where it would prune by its own rule, and append its own columns
    def _postprocess_image_embeds_evs(self, image_embeds_split: Sequence[Tensor], image_input: Any) -> Any:
        return self.placed("image", image_embeds_split, image_input)

    def _postprocess_video_embeds_evs(self, video_embeds_split: Sequence[Tensor], video_input: Any) -> Any:
        return self.placed("video", video_embeds_split, video_input)

    def runs(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[positions.Run]:
        """Where the prompt has places for features."""
        raise NotImplementedError

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: Any) -> tuple[Tensor, int]:
        return positions.lay_out(len(input_tokens), self.runs(input_tokens, mm_features))

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[list[Tensor], Tensor, int]:
        config: Any = self.config
        ids = torch.as_tensor(input_ids, device=mrope_positions.device)
        visual = (ids == config.image_token_id) | (ids == config.video_token_id)
        columns = [features[:, -COLUMNS:] for features in multimodal_embeddings]
        new, delta = positions.fill(mrope_positions, visual, columns, num_computed_tokens)
        return [features[:, :-COLUMNS] for features in multimodal_embeddings], new, delta
