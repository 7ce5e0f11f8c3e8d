"""A folder as `save_pretrained` leaves it for every listed family: the tiny model and a processor of its real class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as hf

from tests.tiny import (
    anyres,
    deepseek,
    docling,
    gemma,
    hybrids,
    llava,
    marked,
    qwen,
    resampled,
    tiled,
    timm_towers,
)
from tests.tiny.base import (
    FAKE_IMAGE,
    GLOBAL_IMAGE,
    IMAGE,
    IMAGE_BREAK,
    ROW_COL,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
    VISION_END,
    VISION_START,
)
from tests.tiny.models import FAMILIES
from tests.tiny.processors import (
    LLAVA_NAMES,
    LLAVA_TEMPLATE,
    QWEN_NAMES,
    QWEN_TEMPLATE,
    build_processor,
    tokenizer,
)

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def template(image: str) -> str:
    """LLaVA's chat template with another word for the image."""
    return LLAVA_TEMPLATE.replace("<image>\\n", image)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def clip(side: int) -> Any:
    return hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square(side))


def words(names: dict[int, str], **special: str) -> Any:
    return tokenizer(names, bos=True, **special)


def vipllava() -> Any:
    return hf.LlavaProcessor(
        clip(llava.SIDE),
        words(LLAVA_NAMES, image_token="<image>"),
        patch_size=llava.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def llava_next() -> Any:
    return hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(
            size={"shortest_edge": anyres.SIDE},
            crop_size=square(anyres.SIDE),
            image_grid_pinpoints=anyres.PINPOINTS,
        ),
        words(LLAVA_NAMES, image_token="<image>"),
        patch_size=anyres.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def llava_onevision() -> Any:
    return hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(
            size=square(anyres.SIDE), image_grid_pinpoints=anyres.PINPOINTS, **HALF
        ),
        words(LLAVA_NAMES | {VIDEO: "<video>"}, image_token="<image>", video_token="<video>"),
        hf.LlavaOnevisionVideoProcessor(size=square(anyres.SIDE)),
        num_image_tokens=anyres.BASE,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )


def qwen_sizes() -> dict[str, Any]:
    cell = (qwen.PATCH * qwen.MERGE) ** 2
    return {
        "patch_size": qwen.PATCH,
        "temporal_patch_size": qwen.FRAMES,
        "merge_size": qwen.MERGE,
        "size": {"shortest_edge": 9 * cell, "longest_edge": 40 * cell},
    }


def qwen_words() -> Any:
    return tokenizer(QWEN_NAMES, bos=False, image_token="<|image_pad|>", video_token="<|video_pad|>")


def qwen2_vl() -> Any:
    return hf.Qwen2VLProcessor(
        hf.Qwen2VLImageProcessor(**qwen_sizes()),
        qwen_words(),
        hf.Qwen2VLVideoProcessor(**qwen_sizes()),
        chat_template=QWEN_TEMPLATE,
    )


def qwen3_vl() -> Any:
    return hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(**qwen_sizes()),
        qwen_words(),
        hf.Qwen3VLVideoProcessor(**qwen_sizes()),
        chat_template=QWEN_TEMPLATE,
    )


def glm4v() -> Any:
    names = {
        IMAGE: "<|image|>",
        VIDEO: "<|video|>",
        VISION_START: "<|begin_of_image|>",
        VISION_END: "<|end_of_image|>",
        VIDEO_START: "<|begin_of_video|>",
        VIDEO_END: "<|end_of_video|>",
    }
    return hf.Glm4vProcessor(
        hf.Glm4vImageProcessor(**qwen_sizes()),
        tokenizer(names, bos=False, image_token="<|image|>", video_token="<|video|>"),
        hf.Glm4vVideoProcessor(**qwen_sizes()),
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>"),
    )


def glm46v() -> Any:
    sizes = qwen_sizes()
    older = glm4v()
    return hf.Glm46VProcessor(
        hf.Glm46VImageProcessor(**sizes),
        older.tokenizer,
        hf.Glm46VVideoProcessor(**sizes),
        chat_template=older.chat_template,
    )


def paddleocr_vl() -> Any:
    sizes = qwen_sizes() | {"temporal_patch_size": 1}
    return hf.PaddleOCRVLProcessor(
        hf.PaddleOCRVLImageProcessor(**sizes), qwen_words(), chat_template=QWEN_TEMPLATE
    )


def lfm2_vl() -> Any:
    names = {IMAGE: "<image>", VISION_START: "<|image_start|>", VISION_END: "<|image_end|>"}
    names |= {17: "<|img_row_1_col_1|>", 18: "<|img_row_1_col_2|>", GLOBAL_IMAGE: "<|img_thumbnail|>"}
    images = hf.Lfm2VlImageProcessor(
        encoder_patch_size=hybrids.PATCH,
        min_image_tokens=9,
        max_image_tokens=16,
        tile_size=24,
        max_tiles=2,
        size=square(24),
    )
    special = {"image_token": "<image>", "image_start_token": "<|image_start|>"}
    special |= {"image_end_token": "<|image_end|>", "image_thumbnail": "<|img_thumbnail|>"}
    return hf.Lfm2VlProcessor(images, words(names, **special), chat_template=template("<image>"))


def internvl() -> Any:
    names = {IMAGE: "<IMG_CONTEXT>", VISION_START: "<img>", VISION_END: "</img>", VIDEO: "<video>"}
    special = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    return hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=square(tiled.SIDE), crop_to_patches=True, max_patches=4, **HALF),
        tokenizer(names, bos=False, **special),
        hf.InternVLVideoProcessor(size=square(tiled.SIDE)),
        image_seq_length=tiled.TOKENS,
        chat_template=template("<IMG_CONTEXT>"),
    )


def idefics_names() -> dict[int, str]:
    return {
        IMAGE: "<image>",
        FAKE_IMAGE: "<fake_token_around_image>",
        GLOBAL_IMAGE: "<global-img>",
        17: "<row_1_col_1>",
        18: "<row_1_col_2>",
        19: "<end_of_utterance>",
    }


def idefics3() -> Any:
    return hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(
            size={"longest_edge": 2 * tiled.SIDE}, max_image_size={"longest_edge": tiled.SIDE}
        ),
        words(idefics_names()),
        image_seq_len=tiled.TOKENS,
        chat_template=template("<image>"),
    )


def gemma3() -> Any:
    names = {IMAGE: "<image_soft_token>", VISION_START: "<start_of_image>", VISION_END: "<end_of_image>"}
    special = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    return hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size=square(gemma.SIDE)),
        words(names, **special),
        image_seq_length=gemma.GEMMA3_TOKENS,
        chat_template=template("<start_of_image>"),
    )


def paligemma() -> Any:
    images = hf.SiglipImageProcessor(size=square(gemma.SIDE))
    images.image_seq_length = gemma.PALIGEMMA_TOKENS
    return hf.PaliGemmaProcessor(images, tokenizer(LLAVA_NAMES, bos=False, image_token="<image>"))


def mistral3() -> Any:
    names = {IMAGE: "[IMG]", IMAGE_BREAK: "[IMG_BREAK]", VISION_END: "[IMG_END]"}
    return hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 48}, patch_size=tiled.PATCH * tiled.MERGE),
        words(names),
        patch_size=tiled.PATCH,
        spatial_merge_size=tiled.MERGE,
        chat_template=template("[IMG]"),
    )


TILES = {"size": square(tiled.SIDE), "crop_to_patches": True, "max_patches": 2}


def aya_vision() -> Any:
    names = {IMAGE: "<|IMG_PATCH|>", VISION_START: "<|START_OF_IMG|>", VISION_END: "<|END_OF_IMG|>"}
    names |= {GLOBAL_IMAGE: "TILE_GLOBAL", ROW_COL: "TILE_1", marked.GRID: "TILE_2"}
    return hf.AyaVisionProcessor(
        hf.GotOcr2ImageProcessor(**TILES, **HALF),
        words(names),
        patch_size=tiled.PATCH,
        img_size=tiled.SIDE,
        downsample_factor=tiled.MERGE,
        chat_template=template("<image>"),
    )


def cohere2_vision() -> Any:
    names = {IMAGE: "<|IMG_PATCH|>", VISION_START: "<|START_OF_IMG|>", VISION_END: "<|END_OF_IMG|>"}
    names |= {IMAGE_BREAK: "<|IMG_LINE_BREAK|>"}
    special = {"image_token": names[IMAGE], "boi_token": names[VISION_START], "eoi_token": names[VISION_END]}
    return hf.Cohere2VisionProcessor(
        hf.Cohere2VisionImageProcessor(**TILES, patch_size=4, **HALF),  # here tokens per side of a tile
        words(names, img_line_break_token=names[IMAGE_BREAK], **special),
        chat_template=template(names[IMAGE]),
    )


def ovis2() -> Any:
    names = {IMAGE: "<IMG_ATOM>", VISION_START: "<IMG_START>", VISION_END: "<IMG_END>", VIDEO: "<image>"}
    names |= {marked.GRID: "<IMG_GRID>", marked.COLUMN: "<IMG_COL>", marked.ROW: "<IMG_ROW>"}
    return hf.Ovis2Processor(
        hf.Ovis2ImageProcessor(**TILES, **HALF),
        words(names),
        image_seq_length=tiled.TOKENS,
        chat_template=template("<image>"),
    )


def deepseek_vl() -> Any:
    return hf.DeepseekVLProcessor(
        hf.DeepseekVLImageProcessor(size=square(gemma.SIDE)),
        words(LLAVA_NAMES, image_token="<image>"),
        num_image_tokens=deepseek.TOKENS,
        chat_template=LLAVA_TEMPLATE,
    )


def deepseek_vl_hybrid() -> Any:
    return hf.DeepseekVLHybridProcessor(
        hf.DeepseekVLHybridImageProcessor(size=square(gemma.SIDE), high_res_size=square(deepseek.FINE_SIDE)),
        words(LLAVA_NAMES, image_token="<image>"),
        num_image_tokens=deepseek.TOKENS,
        chat_template=LLAVA_TEMPLATE,
    )


def granite_docling() -> Any:
    names = {FAKE_IMAGE: "<fake_token_around_image>", GLOBAL_IMAGE: "<global-img>", IMAGE: "<image>"}
    return hf.GraniteDoclingProcessor(
        hf.GraniteDoclingImageProcessor(size=square(tiled.SIDE), max_patches=2),
        words(names | {ROW_COL: "<row_1_col_1>", docling.SECOND: "<row_1_col_2>"}, image_token="<image>"),
        image_seq_len=tiled.TOKENS,
        chat_template=template("<image>"),
    )


def llama4() -> Any:
    names = {IMAGE: "<|patch|>", GLOBAL_IMAGE: "<|image|>", ROW_COL: "<|tile_x_separator|>"}
    names |= {15: "<|tile_y_separator|>", VISION_START: "<|image_start|>", VISION_END: "<|image_end|>"}
    return hf.Llama4Processor(
        hf.Llama4ImageProcessor(size=square(tiled.SIDE), max_patches=2),
        words(names),
        patch_size=tiled.PATCH,
        chat_template=template("<|image|>"),
    )


def idefics2() -> Any:
    return hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(
            size={"shortest_edge": 16, "longest_edge": tiled.SIDE}, do_image_splitting=False
        ),
        words(idefics_names(), image_token="<image>", image_boundary_token="<fake_token_around_image>"),
        image_seq_len=resampled.LATENTS,
        chat_template=template("<image>"),
    )


def fast_vlm() -> Any:
    return hf.LlavaProcessor(
        clip(timm_towers.FAST_SIDE),
        words(LLAVA_NAMES, image_token="<image>"),
        patch_size=32,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "aya_vision": aya_vision,
    "cohere2_vision": cohere2_vision,
    "deepseek_vl": deepseek_vl,
    "deepseek_vl_hybrid": deepseek_vl_hybrid,
    "fast_vlm": fast_vlm,
    "granite_docling": granite_docling,
    "idefics2": idefics2,
    "llama4": llama4,
    "ovis2": ovis2,
    "llava": lambda: build_processor("llava"),
    "vipllava": vipllava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": lambda: build_processor("qwen2_5_vl"),
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "idefics3": idefics3,
    "smolvlm": idefics3,  # its own processor needs num2words, for videos; for images both do the same
    "gemma3": gemma3,
    "paligemma": paligemma,
    "mistral3": mistral3,
    "glm4v": glm4v,
    "glm46v": glm46v,
    "lfm2_vl": lfm2_vl,
    "paddleocr_vl": paddleocr_vl,
    "qwen3_5": qwen3_vl,  # the class that transformers opens it with, too
}
BUILDERS = {name: make for name, make in BUILDERS.items() if name in FAMILIES}


def save(name: str, folder: Path) -> Path:
    """Model and processor of a family."""
    FAMILIES[name].build().save_pretrained(folder)
    BUILDERS[name]().save_pretrained(folder)
    return folder
