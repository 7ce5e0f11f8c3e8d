"""Gemma 4: sliding and full layers with heads of unequal size, the last two sharing earlier keys, inputs per layer.

Media names are grids of visual tokens, 2 x 2 patches each: "HxW" an image, "TxHxW" a video (of two frames). Images see
all of themselves in the sliding layers.
"""

from __future__ import annotations

import inspect

import torch
import transformers as hf
from torch.nn.functional import pad

from .base import IMAGE, TEXT, VIDEO, VISION_END, VISION_START, VOCAB, Family, Media, pixels, text_ids

PATCH, MERGE = 4, 2
WINDOW = 12  # less than an image, as in Gemma 3

PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "video": [[4, "2x3x4", 6]],
    "mixed_batch": [[3, "3x4", 2, "2x3x3", 6], [2, "2x2x4", 2, "4x4", 7]],
    "text": [[11]],
}


def make():
    text = TEXT | {
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "num_kv_shared_layers": 2,
        "sliding_window": WINDOW,
        "head_dim": 16,
        "global_head_dim": 32,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "use_bidirectional_attention": "vision",
    }
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 16, "patch_size": PATCH, "pooling_kernel_size": MERGE}
    vision |= {"position_embedding_size": 16}
    config = hf.Gemma4Config(
        text_config=hf.Gemma4TextConfig(**text),
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=3,
        boi_token_id=VISION_START,
        tie_word_embeddings=False,  # a tied <bos> would be all zeros, whose norms have gradients without bound
        eoi_token_id=VISION_END,
    )
    model = hf.Gemma4ForConditionalGeneration(config)
    for (
        name,
        weight,
    ) in model.named_parameters():  # scores are not scaled: queries of length one, or rounding shows
        if name.endswith("q_norm.weight"):
            weight.data.fill_(0.25)
    return model


def media(name: str, seed: str) -> Media:
    *t, h, w = map(int, name.split("x"))
    y, x = torch.meshgrid(torch.arange(h * MERGE), torch.arange(w * MERGE), indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()], 1)
    frames = t[0] if t else 1
    values = pixels(frames, len(places), 3 * PATCH**2, seed=seed)
    payload = {"values": values, "places": places.expand(frames, -1, -1)}
    if not t:
        return Media("image", [VISION_START, *[IMAGE] * (h * w), VISION_END], payload)
    ids = []
    for f in range(frames):  # "00:03", then the frame
        ids += [*text_ids(2, seed, "time", f), VISION_START, *[VIDEO] * (h * w), VISION_END]
    return Media("video", ids, payload)


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    """Every picture filled up to the longest and beyond: patches of zeros at places of -1."""
    out = {}
    named = inspect.signature(hf.Gemma4ForConditionalGeneration.forward).parameters
    for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        chosen = [m.payload for row in rows for m in row if m.kind == kind]
        if not chosen:
            continue
        most = max(p["values"].shape[1] for p in chosen) + MERGE**2
        short = [most - p["values"].shape[1] for p in chosen]
        values = [pad(p["values"], (0, 0, 0, n)) for p, n in zip(chosen, short)]
        places = [pad(p["places"], (0, 0, 0, n), value=-1) for p, n in zip(chosen, short)]
        # before the number of frames was given, videos stood side by side
        join = torch.cat if kind == "image" or "num_frames_per_video" in named else torch.stack
        out[pixel_name], out[f"{kind}_position_ids"] = join(values), join(places)
        if kind == "video" and "num_frames_per_video" in named:
            out["num_frames_per_video"] = torch.tensor([len(v) for v in values])
    return out


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    def tokens(name):
        places = inputs.get(name, torch.zeros(0, 1, 2))
        return ((places >= 0).all(-1).sum(-1) // MERGE**2).flatten().tolist()

    frames = tokens("video_position_ids")
    return {
        "image": tokens("image_position_ids"),
        "video": [a + b for a, b in zip(frames[::2], frames[1::2])],
    }


FAMILIES = [
    Family("gemma4", make, media, collate, lengths, PROMPTS, types="mm_token_type_ids", video_token_id=VIDEO)
]
