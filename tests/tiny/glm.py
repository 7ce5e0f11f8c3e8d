"""GLM-4.6V and GLM-OCR: the inputs of GLM-4.1V; the former is its text and vision model under another head."""

from __future__ import annotations

import transformers as hf

from .base import TEXT, VIDEO_END, VIDEO_START, VISION_END, VISION_START
from .qwen import IDS, IMAGE_PROMPTS, PATCH, VISION, family, mrope

MARKS = {
    "image_start_token_id": VISION_START,
    "image_end_token_id": VISION_END,
    "video_start_token_id": VIDEO_START,
    "video_end_token_id": VIDEO_END,
}
TOWER = VISION | {"image_size": 6 * PATCH}


def make_glm46v():
    config = hf.Glm46VConfig(
        vision_config=TOWER, text_config=TEXT | {"rope_parameters": mrope(2, 2, 4)}, **IDS, **MARKS
    )
    return hf.Glm46VForConditionalGeneration(config)


def make_glm_ocr():
    text = TEXT | {"rope_parameters": mrope(2, 2, 4)}
    return hf.GlmOcrForConditionalGeneration(
        hf.GlmOcrConfig(vision_config=TOWER, text_config=text, **IDS, **MARKS)
    )


# What goes in is GLM-4.1V's, so fewer kinds of prompts will do.
PROMPTS = {k: p for k, p in IMAGE_PROMPTS.items() if k != "video_batch"}
FAMILIES = [
    family("glm46v", make_glm46v, "glm", PROMPTS),
    family("glm_ocr", make_glm_ocr, "glm", PROMPTS),
]
