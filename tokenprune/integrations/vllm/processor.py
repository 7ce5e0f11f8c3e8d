"""The front end's side: how many places each picture gets in the prompt, before any feature exists.

A mixin for vLLM's multi-modal processors. vLLM calls these methods by keyword, so parameters are named as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptUpdateDetails

from .settings import KEY, MODALITIES, Grid, Settings, per_frame
from .start import settings_of


def field_of(modality: str) -> str:
    """Name of the field that tells the worker how many tokens of each item stay."""
    return f"{modality}_{KEY}_kept"


class Pruning:
    """Adds the counts to an item's data, cuts its placeholders to them, and its hash knows the settings."""

    apart = False  # the frames of a video stand apart in the prompt, with text between

    def grids(self, modality: str, data: Mapping[str, Any]) -> list[Grid]:
        """(t, h, w) in tokens of each item that the Hugging Face processor has put into `data`."""
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """The server's settings, from the model's config."""
        return settings_of(self.info.ctx.model_config.hf_config)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        wanted, rest = self.settings.asked(hf_kwargs.get(KEY)), without(hf_kwargs)
        data = super()._apply_hf_processor_main(mm_items=mm_items, hf_kwargs=rest)
        for modality in MODALITIES:
            if grids := self.grids(modality, data):
                choice = wanted.of(modality)
                data[field_of(modality)] = torch.tensor([[*grid, choice.num_kept(grid)] for grid in grids])
        return data

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        fields = super()._get_mm_fields_config(
            hf_inputs=hf_inputs, hf_processor_mm_kwargs=without(hf_processor_mm_kwargs)
        )
        # On the CPU: fields that are not are taken off an item that is already encoded, and positions need the grid.
        own = {field_of(m): MultiModalFieldConfig.batched(m, keep_on_cpu=True) for m in MODALITIES}
        return {**fields, **own}

    def _get_mm_hashes(self, inputs: Any) -> Any:
        hashes = super()._get_mm_hashes(inputs)
        marks = {
            m: self.settings.of(m).fingerprint() for m in MODALITIES
        }  # vLLM hashes a request's own itself
        return {m: [f"{h}-{marks[m]}" for h in own] if m in marks else own for m, own in hashes.items()}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        updates = super()._get_prompt_updates(
            mm_items=mm_items,
            hf_processor_mm_kwargs=without(hf_processor_mm_kwargs),
            out_mm_kwargs=out_mm_kwargs,
        )

        def shortened(update: Any) -> Any:
            def replacement(index: int) -> PromptUpdateDetails:
                item = out_mm_kwargs[update.modality][index]
                *grid, kept = item[field_of(update.modality)].data.tolist()
                details = update._resolve_content(index)
                return self.shorten(
                    update.modality, details, item, quotas_of(self.apart, update.modality, grid, kept)
                )

            return replace(update, replacement=replacement)

        return [shortened(update) for update in updates]

    def shorten(self, modality: str, details: Any, item: Any, quotas: Sequence[int]) -> PromptUpdateDetails:
        """The text that stands for an item, with so many places in each of its equal runs of places."""
        full: list[int] = list(details.full)
        visual = [True] * len(full) if details.is_embed is None else details.is_embed(full).tolist()
        places = [i for i, is_place in enumerate(visual) if is_place]
        size = len(places) // len(quotas)
        stay = {places[run * size + i] for run, quota in enumerate(quotas) for i in range(quota)}
        left = [token for i, token in enumerate(full) if not visual[i] or i in stay]
        return PromptUpdateDetails(full=left, is_embed=details.is_embed)


class ApartInPrompt:
    """For models whose features are found by the text before them: nothing may hide where a picture begins."""

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> Any:
        ids, placeholders = super()._maybe_apply_prompt_updates(mm_items=mm_items, mm_res=mm_res)
        config = self.info.ctx.model_config.hf_config
        marks = {config.image_token_id, config.video_token_id}
        places = sum(token in marks for token in ids)
        spans = sorted(
            span for items in placeholders.values() for item in items for span in spans_of(item.to_range())
        )
        if any(end == begin for (_, end), (begin, _) in pairwise(spans)):
            raise ValueError("put the model's own marks around each image and video: two of them touch")
        if places != sum(end - begin for begin, end in spans):
            raise ValueError("the prompt has more image or video placeholders than it has images and videos")
        return ids, placeholders


def spans_of(placed: Any) -> list[tuple[int, int]]:
    """Beginning and end of each run of places of an item in the prompt."""
    return [(first, last + 1) for first, last in placed.extract_embeds_range()]


def quotas_of(apart: bool, modality: str, grid: Sequence[int], kept: int) -> list[int]:
    """One count for the whole item, or one for each frame of a video whose frames stand apart."""
    t, h, w = grid
    return per_frame((t, h, w), kept) if apart and modality == "video" else [kept]


def without(kwargs: Mapping[str, object]) -> dict[str, object]:
    """Processor options less ours, which Hugging Face's processors do not know."""
    return {key: value for key, value in kwargs.items() if key != KEY}


def counts_of(field: Any) -> list[list[int]]:
    """(items, 4) field as a worker receives it -> t, h, w and the kept count of each item."""
    if isinstance(field, Tensor):
        return field.view(-1, 4).tolist()
    return [torch.as_tensor(row).flatten().tolist() for row in field]
