"""The parts of `tiny-llava` before any training: configuration, vocabulary, processor, prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, normalizers, processors
from torch import nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from .tokenizing import UNKNOWN, WORDS, spelling, word_level, wrapped
from .vocabulary import LETTERS
from .weights import start_language, write_folder

SPECIAL = ("<pad>", "<s>", "</s>", UNKNOWN, "<image>")
ROLES = ("USER:", "ASSISTANT:")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% else %}{{ 'USER: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def vision_config() -> dict:
    """CLIP, 224 pixels in patches of 16: 196 patches and a class token. LLaVA never reads the last layer."""
    return {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 16,
        "projection_dim": 128,
        "hidden_act": "quick_gelu",
    }


def text_config(layers: int = 16) -> dict:
    """Llama, thin and deep: 16 layers of width 128, because layer-wise budgets need layers to spread over."""
    return {
        "vocab_size": len(_vocabulary()),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "bos_token_id": SPECIAL.index("<s>"),
        "eos_token_id": SPECIAL.index("</s>"),
        "pad_token_id": SPECIAL.index("<pad>"),
    }


def llava_config(vision: dict | None = None, text: dict | None = None) -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**(vision or vision_config())),
        text_config=LlamaConfig(**(text or text_config())),
        image_token_id=SPECIAL.index("<image>"),
        image_seq_length=196,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def _vocabulary() -> dict[str, int]:
    words = dict.fromkeys(f" {word}" for word in WORDS)
    digits = [f" {digit}" for digit in range(10)]
    return {t: i for i, t in enumerate([*SPECIAL, *ROLES, *words, *digits, "s", "es", *LETTERS, *"?.,!:"])}


def build_tokenizer() -> PreTrainedTokenizerFast:
    steps = [
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        normalizers.Prepend(" "),
        *spelling(),
        normalizers.Replace(Regex(r" (?=[A-Z?.,!:])"), ""),
    ]
    core = word_level(_vocabulary(), SPECIAL, steps, rest=" ?[0-9]|[A-Z]|[^ ]")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in ROLES])
    return wrapped(
        core,
        2048,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def build_processor() -> LlavaProcessor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    # The PIL class needs no torchvision; AutoProcessor picks whichever of the two is installed.
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}
        ),
        tokenizer=build_tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(
    vision: dict | None = None, text: dict | None = None, seed: int = 0
) -> LlavaForConditionalGeneration:
    """An untrained model of the final shape, in float32."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(llava_config(vision, text))
    start_language(model.model.language_model)
    nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.3)
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=0, do_sample=False, max_new_tokens=8
    )
    return model


def save_folder(
    model: LlavaForConditionalGeneration, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write model and processor as `from_pretrained` reads them; the model keeps its own dtype."""
    write_folder(model, build_processor(), folder, dtype)
