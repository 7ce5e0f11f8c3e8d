"""Batched tensor functions the methods share: pure, shapes in, shapes out, no loop over tokens or images.

Letters as in `tokenprune.tokens`: S images, N tokens, K kept, C or D features, T question tokens.
"""

from .apportion import largest_remainder
from .cells import Cells, grid_cells, token_cells
from .dedup import bipartite_dedup, dedup_turns
from .hashing import hash_scores
from .precision import ranking
from .relevance import EPS, damp_tail, geometric_fusion, minmax, sharpened_relevance, word_pool
from .segments import segment_mean
from .similarity import BLOCK_BYTES, cosine, max_similarity, unit
from .switch import backend

__all__ = [
    "BLOCK_BYTES",
    "EPS",
    "Cells",
    "backend",
    "bipartite_dedup",
    "cosine",
    "damp_tail",
    "dedup_turns",
    "geometric_fusion",
    "grid_cells",
    "hash_scores",
    "largest_remainder",
    "max_similarity",
    "minmax",
    "ranking",
    "segment_mean",
    "sharpened_relevance",
    "token_cells",
    "unit",
    "word_pool",
]
