"""The parts of `tiny-qwen` before any training: configuration, vocabulary, processor, prompt.

The tokenizer is that of `tiny-llava` in kind: whole domain words (" red"), the plural as a token of its own, and
single capitals, digits and marks, which spell what is written; here a space and the turn of a line are tokens too,
so that a page comes out as it stands. The chat marks and vision marks are the real ones of Qwen2.5-VL.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from .build import NOUNS, WORDS, start_language
from .vocabulary import LETTERS

PATCH, MERGE, FRAMES = 8, 2, 2
CELL = PATCH * MERGE
END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
VISION_START, VISION_END, IMAGE, VIDEO = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO, "<unk>")
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
    core = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    nouns = "|".join(NOUNS)
    core.normalizer = normalizers.Sequence(
        [
            # "What" is " what", but "BOOK" stays: it is spelt with the letters of the picture.
            *[normalizers.Replace(Regex(f"{c}(?=[a-z])"), c.lower()) for c in LETTERS],
            normalizers.Replace(Regex(r"color"), "colour"),
            normalizers.Replace(Regex(r"center"), "centre"),
            # A lower-case word always brings its space along, wherever it stands.
            normalizers.Replace(Regex(r"(?<![a-z ])(?=[a-z])"), " "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf" (?:{nouns})(?=(?:e?s)?(?![a-z]))|(?<=[a-z])e?s(?![a-z])| [a-z]+|[^a-z]"),
        behavior="isolated",
    )
    core.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        unk_token="<unk>",
        pad_token=PAD,
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "vision_start_token": VISION_START,
            "vision_end_token": VISION_END,
        },
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
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


@torch.no_grad()
def start_vision(vision: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Initial weights for a thin tower: unit fan-in, residual outputs small enough for the depth."""
    for name, weight in vision.named_parameters():
        if weight.ndim >= 2:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
        if name.endswith(("attn.proj.weight", "down_proj.weight")):
            weight.mul_((2 * len(vision.blocks)) ** -0.5)


def save_folder(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write model and processor as `from_pretrained` reads them; the model keeps its own dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.to(dtype) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=half)
    build_processor().save_pretrained(folder)
