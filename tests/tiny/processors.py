"""Tiny processors for the tiny llava and qwen2_5_vl: real classes, a tokenizer trained here, chat templates.

Token ids agree with `base`, so `FAMILIES[name].build()` reads what `build_processor(name)` writes.
`save_pretrained(name, folder)` writes both, as a folder that the Auto classes and `pipeline` open.
"""

from __future__ import annotations

import functools
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from . import llava, qwen
from .base import BOS, EOS, FIRST_TEXT, IMAGE, PAD, VIDEO, VISION_END, VISION_START, VOCAB
from .models import FAMILIES

IM_START, IM_END = 15, 16

LLAVA_NAMES = {IMAGE: "<image>"}
QWEN_NAMES = {
    IMAGE: "<|image_pad|>",
    VIDEO: "<|video_pad|>",
    VISION_START: "<|vision_start|>",
    VISION_END: "<|vision_end|>",
    IM_START: "<|im_start|>",
    IM_END: "<|im_end|>",
}

LLAVA_TEMPLATE = """\
{%- for message in messages -%}
{{ message['role'].upper() + ': ' }}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}{{ ' ' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""

QWEN_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

CORPUS = [
    "what is in the image? where is the red square? how many circles are there?",
    "describe the picture. which colour is the largest shape? what happens in the video?",
    "the answer is yes. the answer is no. read the text on the sign. USER: ASSISTANT: user assistant",
]


def tokenizer(names: dict[int, str], *, bos: bool, **special: str) -> PreTrainedTokenizerFast:
    """Character BPE with a few merges: reads any ASCII text back exactly in 200 entries."""
    marks = [names.get(i, f"<|special_{i}|>") for i in range(FIRST_TEXT)]
    marks[PAD], marks[BOS], marks[EOS], marks[3] = "<pad>", "<s>", "</s>", "<unk>"
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    core.decoder = decoders.Metaspace(prepend_scheme="never")
    alphabet = sorted(set(string.printable) - set(string.whitespace) | {"\n", "▁"})
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
        ),
    )
    assert core.get_vocab_size() == VOCAB
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="left",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )


def build_llava() -> LlavaProcessor:
    side = {"height": llava.SIDE, "width": llava.SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=side, crop_size=side),
        tokenizer=tokenizer(LLAVA_NAMES, bos=True, image_token="<image>"),
        patch_size=llava.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def build_qwen() -> Qwen2_5_VLProcessor:
    cell = (qwen.PATCH * qwen.MERGE) ** 2  # pixels of one token
    sizes = {
        "patch_size": qwen.PATCH,
        "temporal_patch_size": qwen.FRAMES,
        "merge_size": qwen.MERGE,
        "size": {"shortest_edge": 9 * cell, "longest_edge": 40 * cell},
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer(QWEN_NAMES, bos=False, image_token="<|image_pad|>", video_token="<|video_pad|>"),
        video_processor=Qwen2VLVideoProcessor(**sizes, cap_pixels_per_frame=False),
        chat_template=QWEN_TEMPLATE,
    )


BUILDERS = {"llava": build_llava, "qwen2_5_vl": build_qwen}


@functools.cache
def build_processor(name: str) -> ProcessorMixin:
    """The processor of "llava" or "qwen2_5_vl"; shared, so do not change it."""
    return BUILDERS[name]()


def save_pretrained(name: str, folder: Path, seed: int = 0) -> Path:
    """Model and processor as a local checkpoint."""
    FAMILIES[name].build(seed).save_pretrained(folder)
    build_processor(name).save_pretrained(folder)
    return folder
