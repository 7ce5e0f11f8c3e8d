"""What Hugging Face answers to the same cases with the dropped tokens hidden: the other side of the comparison.

M-RoPE models: the whole prompt, dropped tokens masked as keys, original positions, no cache. Models with positions
counted anew: the prompt without the dropped rows. Of tokenprune only the choice of tokens is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.tiny import reference as masked
from tokenprune.families.shapes import Shape, grid_shape, joined_shape
from tokenprune.integrations.vllm.choose import Chooser
from tokenprune.integrations.vllm.settings import Settings, per_frame
from tokenprune.methods import get_method

from . import checkpoints
from .cases import FPS, Case

QWEN_MARKS = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
MARKS = {
    "qwen2_5_vl": QWEN_MARKS,
    "qwen3_vl": QWEN_MARKS,
    "llava": {"image": "<image>"},
    "internvl": {"image": "<IMG_CONTEXT>", "video": "<video>"},
}
APART = ("qwen3_vl", "internvl")
COMPACT = ("llava", "internvl")


@dataclass
class Item:
    """One image or video of a prompt as Hugging Face sees it."""

    kind: str
    grid: tuple[int, int, int]
    shape: Shape
    features: Tensor  # (N, D)
    where: Tensor  # (N,) places in the expanded prompt


class Reference:
    """A family's tiny model and processor."""

    def __init__(self, name: str, model: nn.Module, processor: Any = None) -> None:
        self.name, self.model = name, model
        self.processor = processor or checkpoints.processor(name)

    def ids(self, case: Case) -> list[int]:
        """The prompt with one mark a medium, as vLLM is given it."""
        return self.processor.tokenizer(case.text(MARKS[self.name]))["input_ids"]

    @torch.no_grad()
    def inputs(self, case: Case) -> dict[str, Tensor]:
        from PIL import Image
        from transformers.video_utils import VideoMetadata

        images = [Image.fromarray(v) for kind, v in case.media if kind == "image"]
        clips = [v for kind, v in case.media if kind == "video"]
        about = [
            VideoMetadata(total_num_frames=len(v), fps=FPS, duration=len(v) / FPS, video_backend="opencv",
                          frames_indices=list(range(len(v)))) for v in clips
        ]  # fmt: skip
        more: dict[str, Any] = {"images": images} if images else {}
        if clips:
            more |= {"videos": clips, "video_metadata": about, "do_sample_frames": False}
        return dict(self.processor(text=[case.text(MARKS[self.name])], return_tensors="pt", **more))

    @torch.no_grad()
    def items(self, case: Case, inputs: dict[str, Tensor]) -> list[Item]:
        """The media in the order of the prompt."""
        found, ids = [], inputs["input_ids"][0]
        kinds = [kind for kind, _ in case.media]
        for kind, grid, shape, features in self._features(inputs, kinds):
            found.append(Item(kind, grid, shape, features, torch.empty(0)))
        config, free = self.model.config, {}
        video = getattr(config, "video_token_id", None) if self.name.startswith("qwen") else None
        image = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        for kind in ("image", "video"):
            mark = video if kind == "video" and video is not None else image
            free[kind] = (ids == mark).nonzero()[:, 0].tolist()
        taken = free["image"] if video is None else None
        for kind in kinds:
            item = next(i for i in found if i.kind == kind and not len(i.where))
            places = free[kind] if taken is None else taken
            item.where = torch.tensor(places[: len(item.features)])
            del places[: len(item.features)]
        return sorted(found, key=lambda item: int(item.where[0]))

    def _features(self, inputs: dict[str, Tensor], kinds: list[str]) -> list[tuple[str, Any, Shape, Tensor]]:
        base = self.model.model
        out: list[tuple[str, Any, Shape, Tensor]] = []
        if self.name.startswith("qwen"):
            for kind, values, get in (
                ("image", "pixel_values", "get_image_features"),
                ("video", "pixel_values_videos", "get_video_features"),
            ):
                if values not in inputs:
                    continue
                grids = inputs[f"{kind}_grid_thw"]
                answer = getattr(base, get)(inputs[values], grids)
                merge = self.model.config.vision_config.spatial_merge_size
                for features, (t, h, w) in zip(answer.pooler_output, grids.tolist()):
                    grid = (t, h // merge, w // merge)
                    out.append((kind, grid, grid_shape(*grid), features))
            return out
        if "pixel_values" not in inputs:
            return out
        answer = base.get_image_features(inputs["pixel_values"])
        tiles = list(getattr(answer, "pooler_output", answer))
        side = math.isqrt(len(tiles[0]))
        for kind, count in zip(kinds, self._tiles(inputs, kinds, len(tiles))):
            mine, tiles = tiles[:count], tiles[count:]
            tile = grid_shape(1, side, side)
            shape = grid_shape(count, side, side) if kind == "video" else tile
            if kind == "image" and count > 1:
                shape = joined_shape((tile,) * count)
            out.append((kind, (count, side, side), shape, torch.cat(mine)))
        return out

    def _tiles(self, inputs: dict[str, Tensor], kinds: list[str], total: int) -> list[int]:
        """Tiles of each medium: runs of context tokens, where frames of a clip are told by the words between them."""
        if self.name == "llava":
            return [1] * total
        ids, size = inputs["input_ids"][0], self.processor.image_seq_length
        is_place = (ids == self.model.config.image_token_id).tolist()
        runs, length = [], 0
        for flag in [*is_place, False]:
            length = length + 1 if flag else runs.append(length // size) or 0 if length else 0
        counts = []
        for kind, frames in zip(kinds, self._frames):
            counts.append(runs.pop(0) if kind == "image" else sum(runs.pop(0) for _ in range(frames)))
        return counts

    @torch.no_grad()
    def answers(self, case: Case, settings: Settings, steps: int) -> dict[str, Any]:
        """Greedy tokens and their log-probabilities."""
        self._frames = [len(v) if kind == "video" else 1 for kind, v in case.media]
        inputs = self.inputs(case)
        chosen = self.chosen(self.items(case, inputs), settings.asked(case.kwargs.get("tokenprune")))
        dropped = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        for item, rows, index in chosen:
            dropped[0, item.where] = True
            dropped[0, item.where[index]] = False
            item.features = rows
        if self.name in COMPACT:
            tokens, logits = self._compact(inputs, chosen, dropped, steps)
        else:
            tokens, logits = masked.reference_generate(self.model, inputs, dropped, 0, steps)
        told = [float(step[0].log_softmax(-1)[t]) for step, t in zip(logits, tokens[0].tolist())]
        return {"tokens": tokens[0].tolist(), "logprobs": told, "prompt": int((~dropped).sum())}

    def chosen(self, items: list[Item], settings: Settings) -> list[tuple[Item, Tensor, Tensor]]:
        out = []
        for item in items:
            choice = settings.of(item.kind)
            method = get_method(choice.method, keep=choice.keep, **choice.hyper)
            kept = choice.num_kept(item.grid)
            apart = item.kind == "video" and self.name in APART
            quotas = per_frame(item.grid, kept) if apart else [kept]
            friendly = self.name == "internvl"
            out.append((item, *Chooser(method, friendly)(item.features, item.shape, item.kind, quotas)))
        return out

    def _compact(self, inputs: Any, chosen: Any, dropped: Tensor, steps: int) -> tuple[Tensor, list[Tensor]]:
        embed = self.model.get_input_embeddings()
        rows = embed(inputs["input_ids"])[0]
        for item, features, index in chosen:
            rows[item.where[index]] = features
        rows, tokens, logits = rows[~dropped[0]][None], [], []
        for _ in range(steps):
            hidden = self.model.model.language_model(inputs_embeds=rows, use_cache=False).last_hidden_state
            logits.append(self.model.lm_head(hidden[:, -1]))
            tokens.append(logits[-1].argmax(-1, keepdim=True))
            rows = torch.cat([rows, embed(tokens[-1])], 1)
        return torch.cat(tokens, 1), logits
