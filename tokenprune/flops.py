"""FLOPs of a decoder stack by formula: 2 per multiply-accumulate, text included, grouped-query attention counted.

F(n, m) = n token + n m pair multiply-accumulates of one layer for n queries over m keys: projections and the gated MLP
(three matrices) for each token, scores and their product with the values for each pair. No discount for the causal
half, like torch's FlopCounterMode. Layers that carry a state instead of keys have no pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerSize:
    """Multiply-accumulates of one decoder layer, and what it stores."""

    token: int  # for each token
    pair: int  # for each query and key
    stored: int  # numbers that the cache holds of each token

    @classmethod
    def of(cls, config: Any, layer: int) -> LayerSize:
        """Layer number `layer` of a text config."""
        kinds = getattr(config, "layer_types", None)
        kind = kinds[layer] if kinds else "full_attention"
        shared = layer >= config.num_hidden_layers - (getattr(config, "num_kv_shared_layers", None) or 0)
        own = config.per_layer_config[layer] if getattr(config, "is_heterogeneous", False) else config
        mixer, pair, stored = _mixer(own, kind, shared)
        return cls(mixer + _mlp(own, layer, shared), pair, stored)

    def flops(self, queries: int, keys: int) -> float:
        """One layer, one row."""
        return 2.0 * (queries * self.token + queries * keys * self.pair)


def _mixer(config: Any, kind: str, shared: bool) -> tuple[int, int, int]:
    """What mixes the tokens: multiply-accumulates for each token and for each pair, numbers stored of each token."""
    hidden = config.hidden_size
    if kind == "conv":  # LFM2: three gates in, one out
        return 4 * hidden * hidden, 0, 0
    if kind == "linear_attention":  # gated delta rule: q, k, v and a gate in; the state is read and written
        key = config.linear_num_key_heads * config.linear_key_head_dim
        heads, width = config.linear_num_value_heads, config.linear_value_head_dim
        state = 2 * heads * config.linear_key_head_dim * width
        return hidden * (2 * key + 3 * heads * width + 2 * heads) + state, 0, 0
    heads = config.num_attention_heads
    if getattr(config, "kv_lora_rank", None):  # latent attention: keys and values out of one narrow vector
        query, narrow = heads * config.qk_head_dim, config.q_lora_rank
        into = hidden * narrow + narrow * query if narrow else hidden * query
        latent = hidden * (config.kv_lora_rank + config.qk_rope_head_dim)
        out = config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
        value = heads * config.v_head_dim
        return into + latent + out + value * hidden, query + value, query + value
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    stored = 0 if shared else 2 * kv_heads * head_dim
    return hidden * (2 * heads * head_dim + stored), 2 * heads * head_dim, stored


def _mlp(config: Any, layer: int, shared: bool) -> int:
    """Three matrices, as wide as the experts that run are together."""
    experts = getattr(config, "num_experts_per_tok", None)
    width = getattr(config, "moe_intermediate_size", None)
    dense = layer < (getattr(config, "first_k_dense_replace", None) or 0)
    dense |= layer in (getattr(config, "mlp_only_layers", None) or ())
    if wide := getattr(config, "intermediate_size_mlp", None):  # Llama 4 runs every expert, and one beside them
        routed = layer in config.moe_layers
        columns = (config.num_local_experts + 1) * config.intermediate_size if routed else wide
    elif experts and width and not dense:
        always = (getattr(config, "n_shared_experts", None) or 0) * width
        always += getattr(config, "shared_expert_intermediate_size", None) or 0
        columns = experts * width + always
    else:
        double = shared and getattr(config, "use_double_wide_mlp", False)
        columns = config.intermediate_size * (2 if double else 1)
        if getattr(config, "enable_moe_block", False):  # Gemma 4: experts beside the dense one
            columns += config.top_k_experts * width
    gates = 2 * config.hidden_size * (getattr(config, "hidden_size_per_layer_input", None) or 0)
    return 3 * config.hidden_size * columns + gates
