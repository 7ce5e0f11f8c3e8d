"""Tiny models whose images have no place of their own in the token sequence."""

from __future__ import annotations

import transformers

from tests.tiny.base import TEXT

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))


def make_mllama():
    text = {**SMALL, "num_hidden_layers": 2, "cross_attention_layers": [1], "num_key_value_heads": 2}
    text |= {"vocab_size": 64, "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    vision = {"hidden_size": 16, "intermediate_size": 16, "attention_heads": 2, "num_hidden_layers": 1}
    vision |= {"num_global_layers": 1, "image_size": 16, "patch_size": 8, "vision_output_dim": 32}
    vision |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]], "max_num_tiles": 1}
    config = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=5)
    return transformers.MllamaForConditionalGeneration(config)


def make_florence():
    text = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64, "encoder_ffn_dim": 16}
    text |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    vision = {"embed_dim": [8] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "depths": [1] * 4}
    vision |= {"projection_dim": 16, "window_size": 2}
    config = transformers.Florence2Config(vision_config=vision, text_config={"model_type": "bart", **text})
    return transformers.Florence2ForConditionalGeneration(config)


def make_qformer(name: str):
    qformer = {**SMALL, "vocab_size": 64, "encoder_hidden_size": 16, "cross_attention_frequency": 1}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**SMALL, "image_size": 16, "patch_size": 8},
        qformer_config=qformer,
        text_config={"model_type": "opt", **SMALL, "ffn_dim": 16, "vocab_size": 64, "word_embed_proj_dim": 16},
        num_query_tokens=4,
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


def make_blip():
    return make_qformer("Blip2")


def make_instructblip():
    return make_qformer("InstructBlip")


def make_instructblipvideo():
    return make_qformer("InstructBlipVideo")
