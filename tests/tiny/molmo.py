"""Molmo 2: features added to the placeholders' embeddings, all images of a prompt in one bidirectional block.

Media names: "crops": the whole picture in 3 x 3 tokens, then 3 x 5 of it from two crops (24 tokens); "video": three
frames of 3 x 3. A token pools 2 x 2 patches of 6 x 6; the crops' last column of windows is half outside.
"""

from __future__ import annotations

import torch
import transformers

from .base import IMAGE, IMAGE_BREAK, TEXT, VISION_END, VISION_START, VOCAB, Family, Media, pixels, text_ids

PATCHES, PATCH, CROPS, FRAMES = 6, 4, 3, 3
SIDE = 3  # tokens of the whole picture
HIGH = (3, 5)  # of the crops: 6 x 9 patches, three columns of the second crop are left out
LOW_START, FRAME_START, FRAME_END = 15, 16, 17
MARKS = (IMAGE, IMAGE_BREAK, VISION_START, VISION_END, LOW_START, FRAME_START, FRAME_END)
COUNT = SIDE**2 + HIGH[0] * HIGH[1]

PROMPTS = {
    "single": [[4, "crops", 6]],
    "multi": [[4, "crops", 3, "crops", 6]],
    "batch": [[4, "crops", 3, "crops", 6], [2, "crops", 7]],
    "video": [[4, "video", 6]],
    "video_batch": [[4, "video", 6], [2, "video", 9]],
    "text": [[11]],
}


def make():
    width = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    vision = width | {"intermediate_size": 48, "num_hidden_layers": 3, "patch_size": PATCH}
    vision |= {"image_size": [PATCHES * PATCH] * 2}
    adapter = width | {
        "vision_feature_layer": [1, 0],
        "intermediate_size": 48,
        "text_hidden_size": TEXT["hidden_size"],
    }
    text = {**TEXT, "head_dim": 16, "additional_vocab_size": 8, "vocab_size": VOCAB}
    return transformers.Molmo2ForConditionalGeneration(
        transformers.Molmo2Config(
            vision_config=vision,
            adapter_config=adapter,
            text_config={k: v for k, v in text.items() if not k.endswith("_token_id")},
            image_patch_id=IMAGE,
            image_start_token_id=VISION_START,
            image_end_token_id=VISION_END,
            low_res_image_start_token_id=LOW_START,
            frame_start_token_id=FRAME_START,
            frame_end_token_id=FRAME_END,
        )
    )


def windows(grid: torch.Tensor) -> torch.Tensor:
    """(h, w) patch indices, -1 outside -> (tokens, 4) of every 2 x 2 window in raster order."""
    return grid.unfold(0, 2, 2).unfold(1, 2, 2).reshape(-1, 4)


def pooling(name: str) -> torch.Tensor:
    """(tokens, 4) patches of each token, counted from the first picture's first patch."""
    base = torch.arange(PATCHES**2).view(PATCHES, PATCHES)
    if name == "video":
        return torch.cat([windows(base + f * PATCHES**2) for f in range(FRAMES)])
    second = (base + 2 * PATCHES**2)[:, :3]
    outside = torch.full((PATCHES, 1), -1)
    return torch.cat([windows(base), windows(torch.cat([base + PATCHES**2, second, outside], 1))])


def media(name: str, seed: str) -> Media:
    values = pixels(FRAMES if name == "video" else CROPS, PATCHES**2, 3 * PATCH**2, seed=seed)
    payload = {"values": values, "pooling": pooling(name)}
    if name == "video":
        ids = []
        for f in range(FRAMES):  # "0.5 <frame_start>..."
            ids += [*text_ids(2, seed, "time", f), FRAME_START, *[IMAGE] * SIDE**2, FRAME_END]
        return Media("video", ids, payload | {"grid": torch.tensor([FRAMES, SIDE, SIDE])})
    low = [LOW_START, *[*[IMAGE] * SIDE, IMAGE_BREAK] * SIDE, VISION_END]
    high = [VISION_START, *[*[IMAGE] * HIGH[1], IMAGE_BREAK] * HIGH[0], VISION_END]
    return Media("image", low + high, payload | {"grid": torch.tensor([SIDE, SIDE, *HIGH])})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    """Images or videos, never both: the model takes one kind a call."""
    chosen = [m for row in rows for m in row]
    kind = chosen[0].kind
    offset, places = 0, []
    for m in chosen:
        places.append(torch.where(m.payload["pooling"] < 0, -1, m.payload["pooling"] + offset))
        offset += m.payload["values"].shape[:2].numel()
    return {
        "pixel_values" if kind == "image" else "pixel_values_videos": torch.cat(
            [m.payload["values"] for m in chosen]
        ),
        f"{kind}_token_pooling": torch.cat(places),
        f"{kind}_grids": torch.stack([m.payload["grid"] for m in chosen]),
    }


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {
        "image": [COUNT] * len(inputs.get("image_grids", ())),
        "video": [FRAMES * SIDE**2] * len(inputs.get("video_grids", ())),
    }


def kinds_of(ids: torch.Tensor) -> torch.Tensor:
    """Frames are told from images by the mark before them."""
    kinds = (ids == IMAGE).long()
    return kinds + kinds * (ids == FRAME_START).any()


FAMILIES = [
    Family(
        "molmo2",
        make,
        media,
        collate,
        lengths,
        PROMPTS,
        types="mm_token_type_ids",
        types_mark_media=False,
        typed=MARKS,
        kinds_of=kinds_of,
        video_token_id=IMAGE,
    )
]
