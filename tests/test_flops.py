"""Widths of decoder layers as the released configurations give them."""

import transformers

from tokenprune.flops import LayerSize


def test_shared_experts_run_for_every_token():
    config = transformers.DeepseekV2Config(
        num_experts_per_tok=6, moe_intermediate_size=1408, n_shared_experts=2
    )
    assert LayerSize.of(config).mlp == (6 + 2) * 1408


def test_llama4_counts_a_shared_and_a_routed_expert():
    config = transformers.Llama4TextConfig()
    assert LayerSize.of(config).mlp == 2 * config.intermediate_size == config.intermediate_size_mlp


def test_a_dense_layer_has_its_own_width():
    assert LayerSize.of(transformers.LlamaConfig(intermediate_size=96)).mlp == 96
