"""The parts of `tiny-llava` before any training: configuration, vocabulary, processor, prompt.

The tokenizer knows whole domain words (" red", " circle"), the plural as a token of its own, so that
"circles" shares the embedding of " circle", and single capitals, which spell what is written in a picture.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
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

from .vocabulary import COLOURS, LETTERS, SHAPES, SIZES

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
ROLES = ("USER:", "ASSISTANT:")
NOUNS = (*SHAPES, "object", "thing", "word", "letter", "shape", "colour", "size", "picture")
WORDS = (
    *COLOURS, *NOUNS, *SIZES, "what", "where", "which", "how", "many", "much", "is", "are", "there", "the", "a",
    "an", "of", "to", "in", "on", "at", "any", "all", "and", "or", "not", "it", "this", "that", "do", "does",
    "you", "see", "say", "says", "read", "written", "seen", "left", "right", "top", "bottom", "centre", "above",
    "below", "under", "over", "beside", "near", "nearest", "closest", "next", "between", "same", "as", "yes",
    "no", "one", "two", "three", "four", "five", "six", "other", "only", "with", "image", "scene", "here",
)  # fmt: skip

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
    core = Tokenizer(models.WordLevel(_vocabulary(), unk_token="<unk>"))
    nouns = "|".join(NOUNS)
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
            # "What" is " what", but "BOOK" stays: it is spelt with the letters of the picture.
            *[normalizers.Replace(Regex(f"{c}(?=[a-z])"), c.lower()) for c in LETTERS],
            normalizers.Replace(Regex(r"color"), "colour"),
            normalizers.Replace(Regex(r"center"), "centre"),
            normalizers.Replace(Regex(r" (?=[A-Z?.,!:])"), ""),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf" (?:{nouns})(?=(?:e?s)?(?![a-z]))|(?<=[a-z])e?s(?![a-z])| [a-z]+| ?[0-9]|[A-Z]|[^ ]"),
        behavior="isolated",
    )
    core.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in ROLES])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
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


@torch.no_grad()
def start_language(model: nn.Module) -> None:
    """Initial weights for a deep, thin decoder: unit fan-in, and residual outputs small enough for the depth."""
    layers = model.layers
    for layer in layers:
        for name, weight in layer.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_((2 * len(layers)) ** -0.5)
    nn.init.normal_(model.embed_tokens.weight, std=0.1)


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
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.to(dtype) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=half)
    build_processor().save_pretrained(folder)
