"""InternVL, SmolVLM, Idefics3 (images as tiles of one size) and Mistral 3 (Pixtral: any size, break tokens).

Media names of the first three: "plain", or "tiles": two tiles and a thumbnail, together ONE image (48 tokens).
Their payload does not say which tiles make an image; only the marks in the ids do. InternVL and SmolVLM: "video",
three frames that are images by payload and placeholders, and ONE video by the words between. Mistral 3: merged cells
"HxW".
"""

from __future__ import annotations

import functools

import torch
from torch.nn.functional import pad
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen2Config,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from . import labels
from .base import (
    FAKE_IMAGE,
    GLOBAL_IMAGE,
    IMAGE,
    IMAGE_BREAK,
    PAD,
    ROW_COL,
    TEXT,
    VISION_END,
    VISION_START,
    Family,
    Media,
    pixels,
)

SIDE, PATCH, MERGE = 32, 4, 2
TOKENS = (SIDE // PATCH // MERGE) ** 2  # 16 a tile
NEWLINE = 21
FRAMES = 3

PROMPTS = {
    "single": [[4, "plain", 6]],
    "multi": [[4, "plain", 3, "plain", 6]],
    "batch": [[4, "plain", 3, "plain", 6], [2, "plain", 7]],
    "tiles": [[4, "tiles", 6]],
    "tiles_batch": [[4, "tiles", 3, "plain", 6], [2, "tiles", 7]],
    "text": [[11]],
}
CLIP_PROMPTS = PROMPTS | {
    "video": [[4, "video", 6]],
    "mixed_batch": [[3, "plain", 2, "video", 2, "plain", 6], [2, "video", 3, "video", 2, "tiles", 7]],
}
MISTRAL_PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "text": [[11]],
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH,
}


def make_internvl():
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=VISION | {"image_size": SIDE},
            text_config=Qwen2Config(**TEXT),
            image_token_id=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )
    )


def make_idefics(model_class, config_class):
    return model_class(
        config_class(
            vision_config=VISION | {"image_size": SIDE},
            text_config=LlamaConfig(**TEXT),
            image_token_id=IMAGE,
            scale_factor=MERGE,
        )
    )


def make_mistral():
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            vision_config=PixtralVisionConfig(**VISION, image_size=64),
            text_config=MistralConfig(**TEXT, head_dim=16, sliding_window=None),
            image_token_index=IMAGE,
            spatial_merge_size=MERGE,
            tie_word_embeddings=False,
        )
    )


def tile_values(name: str, seed: str) -> torch.Tensor:
    return pixels({"tiles": 3, "video": FRAMES}.get(name, 1), 3, SIDE, SIDE, seed=seed)


def internvl_media(name: str, seed: str) -> Media:
    values = tile_values(name, seed)
    if name == "video":
        frame = [VISION_START, *[IMAGE] * TOKENS, VISION_END]
        return Media("video", labels.numbered([frame] * FRAMES), {"pixel_values": values})
    # tiles follow each other without a mark
    ids = [VISION_START, *[IMAGE] * (TOKENS * len(values)), VISION_END]
    return Media("image", ids, {"pixel_values": values})


def idefics_media(name: str, seed: str) -> Media:
    values = tile_values(name, seed)
    if name == "video":
        frame = [FAKE_IMAGE, GLOBAL_IMAGE, *[IMAGE] * TOKENS, FAKE_IMAGE]
        return Media("video", labels.timed([frame] * FRAMES), {"pixel_values": values})
    ids = []
    for _ in values[:-1]:  # the row and column token is text
        ids += [FAKE_IMAGE, ROW_COL, *[IMAGE] * TOKENS]
    if ids:
        ids += [NEWLINE, NEWLINE]
    ids += [FAKE_IMAGE, GLOBAL_IMAGE, *[IMAGE] * TOKENS, FAKE_IMAGE]
    return Media("image", ids, {"pixel_values": values})


def mistral_media(name: str, seed: str) -> Media:
    height, width = map(int, name.split("x"))
    ids = ([IMAGE] * width + [IMAGE_BREAK]) * height
    ids[-1] = VISION_END
    size = torch.tensor([height, width]) * PATCH * MERGE
    return Media("image", ids, {"pixel_values": pixels(3, *size.tolist(), seed=seed), "image_sizes": size})


def collate_internvl(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.cat([m.payload["pixel_values"] for row in rows for m in row])}


def collate_idefics(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    """(B, tiles, 3, H, W), filled up with tiles of zeros, which the model takes out again."""
    values = [torch.cat([m.payload["pixel_values"] for m in row]) for row in rows]
    most = max(map(len, values))
    seen = [torch.ones(len(v), SIDE, SIDE, dtype=torch.long) for v in values]
    return {
        "pixel_values": torch.stack([pad(v, (0, 0) * 3 + (0, most - len(v))) for v in values]),
        "pixel_attention_mask": torch.stack([pad(v, (0, 0) * 2 + (0, most - len(v))) for v in seen]),
    }


def collate_mistral(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    sizes = torch.stack([m.payload["image_sizes"] for row in rows for m in row])
    height, width = sizes.amax(0).tolist()
    values = [m.payload["pixel_values"] for row in rows for m in row]
    padded = [pad(v, (0, width - v.shape[2], 0, height - v.shape[1])) for v in values]
    return {"pixel_values": torch.stack(padded), "image_sizes": sizes}


def marked_lengths(inputs: dict[str, torch.Tensor], *, opened: int, closed: int) -> dict[str, list[int]]:
    """An image ends at the first `closed` after an `opened`; all image ids since the last end are its own."""
    counts = []
    for row in inputs["input_ids"].tolist():
        count, last = 0, False
        for i in row:
            count += i == IMAGE
            last |= i == opened
            if last and i == closed:
                counts.append(count)
                count, last = 0, False
    return {"image": counts, "video": []}


def mistral_lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    sizes = inputs.get("image_sizes", torch.zeros(0, 2, dtype=torch.long))
    return {"image": (sizes // (PATCH * MERGE)).prod(-1).tolist(), "video": []}


def clip_kinds(ids: torch.Tensor, *, label: list[int]) -> torch.Tensor:
    """1 at images, 2 at frames: `label` stands right before a frame's first id, 0 in it for any digit."""
    kinds = (ids == IMAGE).long()
    for row, kind in zip(ids.tolist(), kinds):
        for start in range(len(label), len(row)):
            before = [
                0 if labels.ZERO <= i < labels.ZERO + 10 else i for i in row[start - len(label) : start]
            ]
            if row[start] == IMAGE and before == label:
                kind[start : start + TOKENS] = 2
    return kinds


def clip_lengths(inputs: dict[str, torch.Tensor], *, label: list[int], **marks: int) -> dict[str, list[int]]:
    """As `marked_lengths` for what is no frame; all videos are of `FRAMES` frames."""
    frames = clip_kinds(inputs["input_ids"], label=label) == 2
    images = marked_lengths({"input_ids": inputs["input_ids"].masked_fill(frames, PAD)}, **marks)["image"]
    videos = int(frames.sum()) // (FRAMES * TOKENS)
    return {"image": [n for n in images if n], "video": [FRAMES * TOKENS] * videos}


INTERNVL = {"label": [labels.FRAME, 0, labels.COLON, labels.SPACE, VISION_START]}
SMOLVLM = {"label": [labels.FRAME_FROM, 0, 0, labels.COLON, 0, 0, labels.COLON, FAKE_IMAGE, GLOBAL_IMAGE]}
IDEFICS_MARKS = {"opened": GLOBAL_IMAGE, "closed": FAKE_IMAGE}

FAMILIES = [
    Family(
        "internvl",
        make_internvl,
        internvl_media,
        collate_internvl,
        functools.partial(clip_lengths, opened=VISION_START, closed=VISION_END, **INTERNVL),
        CLIP_PROMPTS,
        kinds_of=functools.partial(clip_kinds, **INTERNVL),
        reader=labels.Reader(),
    ),
    Family(
        "smolvlm",
        functools.partial(make_idefics, SmolVLMForConditionalGeneration, SmolVLMConfig),
        idefics_media,
        collate_idefics,
        functools.partial(clip_lengths, **IDEFICS_MARKS, **SMOLVLM),
        CLIP_PROMPTS,
        kinds_of=functools.partial(clip_kinds, **SMOLVLM),
        reader=labels.Reader(),
    ),
    Family(
        "idefics3",
        functools.partial(make_idefics, Idefics3ForConditionalGeneration, Idefics3Config),
        idefics_media,
        collate_idefics,
        functools.partial(marked_lengths, **IDEFICS_MARKS),
        PROMPTS,
    ),
    Family("mistral3", make_mistral, mistral_media, collate_mistral, mistral_lengths, MISTRAL_PROMPTS),
]
