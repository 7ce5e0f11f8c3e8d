"""What a method should be shown of the vision tower, worked out from the unpatched eager model, family by family."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiny.models import FAMILIES
from tests.tiny.reference import eager

BLOCK = {"llava": 1, "vipllava": 2, "llava_next": 1, "qwen2_vl": 2, "qwen2_5_vl": 3, "qwen3_vl": 3, "glm4v": 2}
BLOCK |= {"llava_next_video": 1, "video_llava": 1, "video_llama_3": 2, "granite_docling": 2}
BLOCK |= {"glm46v": 2, "glm_ocr": 2, "qwen3_vl_moe": 3, "qwen3_5": 2, "qwen3_5_moe": 2, "minicpmv4_6": 2}
"""The block whose output the model reads (its last full one); 1, the last one, in the other towers."""

TILED = (
    "aya_vision",
    "cohere2_vision",
    "gemma3",
    "granite_docling",
    "idefics3",
    "internvl",
    "llama4",
    "ovis2",
    "smolvlm",
)
"""Tiles of 8 x 8 patches and 4 x 4 tokens."""

TOWERS = ("vision_tower", "visual", "vision_model", "image_tower")
PROJECTORS = ("multi_modal_projector", "connector", "projector", "visual.merger", "merger", "mm_projector")
PROJECTORS += ("embed_vision", "aligner", "vision_tower.head_linear")
PROJECTOR = {"llama4": "vision_model.vision_adapter", "granite_docling": "vision_model.connector"}
CLS = ("llava", "vipllava", "llava_next", "llava_next_video", "video_llava", "internvl", "llama4")


def find(model, names) -> torch.nn.Module:
    for name in names:
        if name.split(".")[0] in dict(model.base_model.named_children()):
            return model.base_model.get_submodule(name)
    raise LookupError(names)


def blocks(tower) -> torch.nn.ModuleList:
    """The one list of equal blocks (Qwen3's list of DeepStack mergers is shorter)."""
    lists = [m for m in tower.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


def observe(model, inputs: dict, name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Attention weights (heads, P, P) of each picture or frame at the right block, and the projector's inputs."""
    weights, features = [], []
    block = blocks(find(model, TOWERS))[BLOCK.get(name, 1)] if FAMILIES[name].attends else None

    def standard(module, args, output):
        # one (heads, P, P) per picture; a packing tower gives them one by one
        weights.extend(w.flatten(0, -3) for w in output[1])

    def packed(module, args, kwargs, output):
        """Qwen's attention returns no weights: again from its own projections, frame by frame."""
        hidden = args[0] if args else kwargs["hidden_states"]
        if hasattr(module, "qkv"):
            q, k, _ = module.qkv(hidden).reshape(len(hidden), 3, module.num_heads, -1).permute(1, 2, 0, 3)
        else:  # Kimi's and MiniCPM's
            flat = hidden.reshape(-1, hidden.shape[-1])
            both = module.q_proj(flat), module.k_proj(flat)
            q, k = (x.unflatten(1, (module.num_heads, -1)).transpose(0, 1) for x in both)
        if hasattr(module, "q_norm"):  # GLM-OCR's
            q, k = module.q_norm(q), module.k_norm(k)
        rotary = kwargs.get("position_embeddings")

        def rotate(x):
            (cos, sin), (first, second) = (t.float() for t in rotary), x.chunk(2, -1)
            return x * cos + torch.cat([-second, first], -1) * sin

        if rotary is not None:
            q, k = rotate(q), rotate(k)
        bounds = kwargs["cu_seqlens"].tolist()
        for a, b in itertools.pairwise(bounds):
            logits = q[:, a:b] @ k[:, a:b].transpose(1, 2) * q.shape[-1] ** -0.5
            weights.append(logits.softmax(-1))

    if block is None:
        hooks = []
    elif name == "minicpmv4_6":
        hooks = [block.self_attn.register_forward_hook(packed, with_kwargs=True)]
    elif hasattr(block, "attn"):
        hooks = [block.attn.register_forward_hook(packed, with_kwargs=True)]
    else:
        attention = next(m for n, m in block.named_modules() if n in ("self_attn", "attention"))
        hooks = [attention.register_forward_hook(standard)]
    if name == "video_llava":  # a second tower
        twin = blocks(model.model.video_tower)[BLOCK[name]]
        hooks.append(twin.self_attn.register_forward_hook(standard))
    if name.startswith("glm"):
        projector = model.model.visual.downsample
    else:
        projector = find(model, [PROJECTOR[name]] if name in PROJECTOR else PROJECTORS)

    def before(module, args, kwargs):
        features.append(args[0] if args else kwargs["inputs_embeds"])

    hooks.append(projector.register_forward_pre_hook(before, with_kwargs=True))
    try:
        with eager(model):
            model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return weights, features


def received(weights: Tensor, name: str) -> Tensor:
    """(P,) the class token's row where there is one (Llama 4's is last), else what each patch receives on average."""
    if name == "llama4":
        return weights.mean(0)[-1, :-1]
    return weights.mean(0)[0, 1:] if name in CLS else weights.mean((0, 1))


def halved(values: Tensor, h: int, w: int) -> Tensor:
    """(h w, C) -> the mean of every 2 x 2 cell, in raster order."""
    return torch.stack([
        torch.stack([values[(y + dy) * w + x + dx] for dy in (0, 1) for dx in (0, 1)]).mean(0)
        for y in range(0, h, 2)
        for x in range(0, w, 2)
    ])  # fmt: skip


def with_newlines(rows: Tensor) -> Tensor:
    """(h, w, C) -> (h (w + 1), C): behind each row its mean."""
    return torch.cat([rows, rows.mean(1, keepdim=True)], 1).flatten(0, 1)


def anyres(crops: Tensor, size: tuple[int, int], several: bool) -> Tensor:
    """(3, 9, C) crops -> the tokens of one LLaVA-NeXT picture of the sizes that the tiny prompts use."""
    base = crops[0]
    if several:  # OneVision: no crops; the newline closes the last row
        return torch.cat([base, base[-3:].mean(0, keepdim=True)])
    left, right = crops[1].unflatten(0, (3, 3)), crops[2].unflatten(0, (3, 3))
    if size == (20, 40):  # two crops side by side
        return torch.cat([base, with_newlines(torch.cat([left, right], 1))])
    assert size == (60, 10)  # one above the other, padded at both sides: the middle column is left
    return torch.cat([base, with_newlines(torch.cat([left, right], 0)[:, 1:2])])


def video_frames(patches: Tensor) -> Tensor:
    """(5, 9, C) -> OneVision's 2 x 2 tokens a frame and one newline."""
    frames = F.interpolate(patches.unflatten(1, (3, 3)).permute(0, 3, 1, 2), (2, 2), mode="bilinear")
    tokens = frames.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([tokens, tokens[-2:].mean(0, keepdim=True)])


def window_order(t: int, h: int, w: int) -> list[int]:
    """Qwen2.5-VL's tower goes through each frame by windows of 2 x 2 tokens; cut ones at the edges are smaller."""
    return [
        (f * h + y) * w + x
        for f in range(t)
        for top in range(0, h, 2)
        for left in range(0, w, 2)
        for y in range(top, min(top + 2, h))
        for x in range(left, min(left + 2, w))
    ]


RASTER = ("paddleocr_vl", "lfm2_vl", "kimi_k25", "gemma4", "minicpmv4_6")
"""Towers whose patches come row by row, each size its own."""


def raster_grids(name: str, inputs: dict) -> list[tuple[int, int]]:
    """(h, w) in patches of every picture, as the last block sees them; images before videos."""
    if name == "lfm2_vl":
        return inputs["spatial_shapes"].tolist()
    if name == "minicpmv4_6":  # merged half way
        sizes = [inputs[n] for n in ("target_sizes", "target_sizes_videos") if n in inputs]
        return (torch.cat(sizes) // 2).tolist()
    if name == "gemma4":
        places = [inputs[n] for n in ("image_position_ids", "video_position_ids") if n in inputs]
        return [(int(y) + 1, int(x) + 1) for p in places for x, y in p.flatten(0, -3).amax(1)]
    return inputs["image_grid_thw"][:, 1:].tolist()


def clips(name: str, inputs: dict, pictures: list[Tensor]) -> list[Tensor]:
    """Tiles of one image and frames of one video joined, as many as fill it."""
    out = []
    counts = FAMILIES[name].lengths(inputs)
    for count in counts["image"] + counts["video"]:
        parts = [pictures.pop(0)]
        while sum(map(len, parts)) < count:
            parts.append(pictures.pop(0))
        out.append(torch.cat(parts))
    return out


def per_picture(name: str, inputs: dict, patches: list[Tensor]) -> list[Tensor]:
    """(P, C) of every tower picture or frame -> (n, C) of every image or video, in the order of the payload."""
    if name in ("llava", "vipllava", "paligemma", "deepseek_vl", "deepseek_vl_hybrid", "fast_vlm"):
        return patches
    if name in TILED:
        return join_tiles(name, inputs, [halved(p, 8, 8) for p in patches])
    if name == "got_ocr2":
        return join_tiles(name, inputs, [halved(halved(p, 16, 16), 8, 8) for p in patches])
    if name == "perception_lm":  # three tiles or frames each
        tokens = [halved(p, 6, 6) for p in patches]
        return [torch.cat(tokens[i : i + 3]) for i in range(0, len(tokens), 3)]
    if name == "molmo2":
        return per_windows(inputs, torch.cat([p.flatten(0, -2) for p in patches]))
    if name == "mistral3":
        sizes = (inputs["image_sizes"] // 4).tolist()
        return [halved(p, h, w) for p, (h, w) in zip(torch.cat(patches).split([h * w for h, w in sizes]), sizes)]
    if name in RASTER:
        grids = raster_grids(name, inputs)
        flat = torch.cat(patches)
        if len(flat) * 4 == sum(h * w for h, w in grids):  # pooled already
            return clips(name, inputs, list(flat.split([h * w // 4 for h, w in grids])))
        pictures = flat.split([h * w for h, w in grids])
        return clips(name, inputs, [halved(p, h, w) for p, (h, w) in zip(pictures, grids)])
    if name in ("llava_next_video", "video_llava"):
        return per_clip(name, inputs, patches)
    if name == "video_llama_3":
        return per_cells(inputs, torch.cat(patches))
    if name in ("llava_next", "llava_onevision"):
        return per_anyres(name, inputs, torch.stack(patches))
    out, rest = [], torch.cat(patches)
    grids = inputs.get("image_grid_thw", torch.zeros(0, 3)), inputs.get("video_grid_thw", torch.zeros(0, 3))
    for t, h, w in torch.cat(grids).int().tolist():
        cells, rest = rest[: t * h * w].unflatten(0, (-1, 4)).mean(1), rest[t * h * w :]
        tokens = torch.empty_like(cells)
        order = window_order(t, h // 2, w // 2) if name == "qwen2_5_vl" else range(len(cells))
        tokens[list(order)] = cells
        out.append(tokens)
    return out


def per_anyres(name: str, inputs: dict, patches: Tensor) -> list[Tensor]:
    out, used = [], 0
    several = [n > 1 for n in inputs.get("batch_num_images", torch.ones(99)).int().tolist() for _ in range(n)]
    sizes = inputs["image_sizes"].tolist() if "image_sizes" in inputs else []
    for size, base_only in zip(sizes, several if name == "llava_onevision" else [False] * 99):
        crops = patches[used : used + (1 if base_only else 3)]
        out.append(anyres(crops, tuple(size), base_only))
        used += len(crops)
    videos = patches[used:].split(5)
    return out + [video_frames(v) for v in videos if len(v)]


def per_clip(name: str, inputs: dict, patches: list[Tensor]) -> list[Tensor]:
    """LLaVA-NeXT-Video and Video-LLaVA: images, then clips of three frames."""
    sizes = [tuple(s) for s in inputs.get("image_sizes", torch.zeros(0, 2)).tolist()]
    crops, out = 3 if name == "llava_next_video" else 1, []
    for i in range(len(FAMILIES[name].lengths(inputs)["image"])):
        base, *rest = patches[i * crops : (i + 1) * crops]
        if rest:
            first, second = (crop.unflatten(0, (4, 4)) for crop in rest)
            wide = sizes[i] == (10, 60)  # the outer two rows, or columns, are padding
            both = torch.cat([first, second], 1)[1:3] if wide else torch.cat([first, second], 0)[:, 1:3]
            base = torch.cat([base, with_newlines(both)])
        out.append(base)
    frames = patches[len(out) * crops :]
    if name == "llava_next_video":
        frames = [f if len(f) == 4 else halved(f, 4, 4) for f in frames]
    else:
        frames = [f if len(f) == 10 else torch.cat([f.mean(0, keepdim=True), f]) for f in frames]
    return out + [torch.cat(frames[i : i + 3]) for i in range(0, len(frames), 3)]


def per_cells(inputs: dict, patches: Tensor) -> list[Tensor]:
    """VideoLLaMA 3: images of one patch a token, videos of four, of which the processor's mask leaves some."""
    empty, out = torch.zeros(0, 3, dtype=torch.long), []
    images, videos = (inputs.get(f"{kind}_grid_thw", empty).prod(1).tolist() for kind in ("image", "video"))
    shrunk = len(patches) < sum(images) + sum(videos)
    kept = list(inputs.get("video_compression_mask", empty).split([n // 4 for n in videos])) if videos else []
    counts = images + [n // 4 if shrunk else n for n in videos]
    for i, n in enumerate(counts):
        tokens, patches = patches[:n], patches[n:]
        if i >= len(images):
            tokens = (tokens if shrunk else tokens.unflatten(0, (-1, 4)).mean(1))[kept[i - len(images)]]
        out.append(tokens)
    return out


def per_windows(inputs: dict, patches: Tensor) -> list[Tensor]:
    """Molmo 2: the mean of every window of 2 x 2 patches, of those that are inside the picture."""
    kind = "image" if "image_grids" in inputs else "video"
    tokens = [
        torch.stack([patches[i] for i in window if i >= 0]).mean(0)
        for window in inputs[f"{kind}_token_pooling"].tolist()
    ]
    grids = inputs[f"{kind}_grids"].tolist()
    counts = [a * b + c * d for a, b, c, d in grids] if kind == "image" else [t * h * w for t, h, w in grids]
    return list(torch.stack(tokens).split(counts))


def join_tiles(name: str, inputs: dict, tiles: list[Tensor]) -> list[Tensor]:
    """Tiles of one picture one after the other, thumbnail last; so are frames of one video."""
    counts = [len(where) // 16 for row in FAMILIES[name].visual_positions(inputs) for where in row]
    return [torch.cat([tiles.pop(0) for _ in range(c)]) for c in counts]


def expected(name: str, model, inputs: dict) -> dict[str, list[Tensor]]:
    """`saliency` and `vision_features` of every image and video, in the order of the payload (images first)."""
    weights, features = observe(model, inputs, name)
    if name == "mistral3":  # one packed sequence with a mask between the pictures
        sizes = (inputs["image_sizes"] // 4).prod(1).tolist()
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        weights = [weights[0][:, a : a + n, a : a + n] for a, n in zip(starts, sizes)]
    if name in ("lfm2_vl", "gemma4"):  # each filled up to the longest
        sizes = [h * w for h, w in raster_grids(name, inputs)]
        weights = [w[:, :n, :n] for w, n in zip(weights, sizes, strict=True)]
    attention = [received(w, name)[:, None] for w in weights]
    if name.startswith("glm"):
        features = [f.flatten(2).transpose(1, 2).flatten(0, 1) for f in features]
    elif name == "kimi_k25":  # reads cells of 2 x 2 patches as lists
        counts = FAMILIES[name].lengths(inputs)["image"]
        cells = list(torch.cat(features).mean(1).split(counts))
        return {"saliency": per_picture(name, inputs, attention), "vision_features": cells}
    elif name in ("internvl", "ovis2"):  # reads cells of 2 x 2 patches side by side: nothing left to pool
        saliency = per_picture(name, inputs, attention)
        return {"saliency": saliency, "vision_features": join_tiles(name, inputs, list(torch.cat(features)))}
    elif name == "got_ocr2":
        features = [f.flatten(2).transpose(1, 2) for f in features]
    elif name in RASTER:
        features = [f.reshape(-1, f.shape[-1]) for f in features]
    if name not in RASTER and not name.startswith(("qwen", "glm", "mistral3", "video_llama", "molmo2")):
        features = [p for f in features for p in f]
    found = {"saliency": attention, "vision_features": features}
    return {f: per_picture(name, inputs, v) for f, v in found.items() if f in FAMILIES[name].tower_fields}
