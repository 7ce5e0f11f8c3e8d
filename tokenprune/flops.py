"""FLOPs of a decoder stack by formula: 2 per multiply-accumulate, text included, grouped-query attention counted.

F(n, m) = n (2 d d_q + 2 d d_kv + mats d w) + 2 n m d_q multiply-accumulates for n queries over m keys: projections,
the gated MLP (three matrices), scores and their product with the values. No discount for the causal half, like
torch's FlopCounterMode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerSize:
    """Widths of one decoder layer."""

    hidden: int
    query: int  # heads x head_dim
    kv: int  # key heads x head_dim
    mlp: int  # columns of one MLP matrix, times the experts that run
    mlp_matrices: int = 3

    @classmethod
    def of(cls, config: Any) -> LayerSize:
        """From a text config."""
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        experts = getattr(config, "num_experts_per_tok", None)
        expert_width = getattr(config, "moe_intermediate_size", None)
        mlp = experts * expert_width if experts and expert_width else config.intermediate_size
        return cls(config.hidden_size, heads * head_dim, kv_heads * head_dim, mlp)

    def flops(self, queries: int, keys: int) -> float:
        """One layer, one row."""
        weights = (
            2 * self.hidden * self.query
            + 2 * self.hidden * self.kv
            + self.mlp_matrices * self.hidden * self.mlp
        )
        return 2.0 * (queries * weights + 2 * queries * keys * self.query)
