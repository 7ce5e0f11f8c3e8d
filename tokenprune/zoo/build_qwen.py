"""The parts of `tiny-qwen` before any training: configuration, vocabulary, processor, prompt.

Here digits and marks spell what is written too, and a space and the turn of a line are tokens, so that a page comes
out as it stands. The chat marks and vision marks are the real ones of Qwen2.5-VL.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, normalizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from .tokenizing import UNKNOWN, WORDS, spelling, word_level, wrapped
from .vocabulary import LETTERS
from .weights import start, start_language, write_folder

PATCH, MERGE, FRAMES = 8, 2, 2
CELL = PATCH * MERGE
END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
VISION_START, VISION_END, IMAGE, VIDEO = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO, UNKNOWN)
MORE_WORDS = (
    "user", "assistant", "system", "line", "page", "value", "row", "column", "number", "price", "table", "list",
    "clip", "video", "frame", "move", "moves", "moving", "way", "up", "down", "before", "after", "cut", "first",
    "second", "last", "third", "appear", "appears", "disappears", "blink", "blinks", "times", "time", "often",
    "change", "changes", "changed", "anything", "something", "still", "flash", "flashes", "text", "merge",
    "merges", "order", "then", "was", "were", "did", "does", "into", "from", "start", "end", "when", "none",
    "never", "once", "twice", "both", "new", "old", "for", "by", "out", "off", "they", "has", "have", "be",
    "please", "answer", "describe", "transcribe", "copy", "spell", "total", "date", "seven", "eight", "nine",
    "ten", "zero", "left-hand", "fast", "slow", "turn", "turns", "goes", "go", "come", "comes", "hidden", "shown",
)  # fmt: skip
MARKS = "?.,!:;-/$%+*#()&'="

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' or 'video' in part %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def vocabulary() -> dict[str, int]:
    words = dict.fromkeys(f" {word}" for word in (*WORDS, *MORE_WORDS) if word.isalpha())
    tokens = dict.fromkeys([*SPECIAL, *words, "s", "es", *LETTERS, *"0123456789", *MARKS, " ", "\n"])
    return {token: i for i, token in enumerate(tokens)}


def vision_config() -> dict:
    """Patches of 8 pixels, merged 2 x 2: a visual token is 16 x 16 pixels, about one character of a page."""
    return {
        "depth": 4,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "window_size": 64,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 128,
        "tokens_per_second": 4,
    }


def text_config(layers: int = 16) -> dict:
    """Thin and deep, the shape of `tiny-llava`'s decoder. M-RoPE shares out the sixteen rotations in turn (time,
    height, width, time, ...), so that rows and columns get fast ones as well as slow ones: twenty columns fit."""
    return {
        "vocab_size": len(vocabulary()),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [0, 0, 1, 0, 1, 1, 1, 1, 1, 2, 2, 6],
        },
        "bos_token_id": SPECIAL.index(PAD),
        "eos_token_id": SPECIAL.index(END),
        "pad_token_id": SPECIAL.index(PAD),
    }


def qwen_config(layers: int = 16) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        vision_config=vision_config(),
        text_config=text_config(layers),
        image_token_id=SPECIAL.index(IMAGE),
        video_token_id=SPECIAL.index(VIDEO),
        vision_start_token_id=SPECIAL.index(VISION_START),
        vision_end_token_id=SPECIAL.index(VISION_END),
        tie_word_embeddings=True,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    # A lower-case word always brings its space along, wherever it stands.
    steps = [*spelling(), normalizers.Replace(Regex(r"(?<![a-z ])(?=[a-z])"), " ")]
    return wrapped(
        word_level(vocabulary(), SPECIAL, steps, rest="[^a-z]"),
        4096,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "vision_start_token": VISION_START,
            "vision_end_token": VISION_END,
        },
    )


def build_processor() -> Qwen2_5_VLProcessor:
    from transformers import Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    grid = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": FRAMES}
    size = {"shortest_edge": 4 * CELL**2, "longest_edge": 1280 * CELL**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=size, **grid),
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False, **grid),
        tokenizer=build_tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )


def new_model(layers: int = 16, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model of the final shape, in float32."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(qwen_config(layers))
    start_language(model.model.language_model)
    start_vision(model.model.visual)
    model.generation_config = GenerationConfig(
        eos_token_id=SPECIAL.index(END), pad_token_id=SPECIAL.index(PAD), do_sample=False, max_new_tokens=96
    )
    return model


def start_vision(vision: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Initial weights of a tower."""
    start(vision, len(vision.blocks), ("attn.proj.weight", "down_proj.weight"))


def save_folder(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write model and processor as `from_pretrained` reads them; the model keeps its own dtype."""
    write_folder(model, build_processor(), folder, dtype)
