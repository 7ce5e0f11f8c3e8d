"""Instance tokens as an image index: a few vectors a picture, matched by late interaction.

from tokenprune.retrieval import Encoder, Index
encoder = Encoder(tower, k=64)                      # a timm or open_clip tower
index = Index.create("craters.index", encoder.spec)
index.add(names, encoder.read(pictures))            # durable when it returns
index.search(encoder.read(queries), top=10, shortlist=100)
"""

from .encode import Encoded, Encoder, Features, encode
from .index import Hits, Index, Spec
from .matching import chamfer, maxsim
from .metrics import Scores, score_rankings

__all__ = [
    "Encoded",
    "Encoder",
    "Features",
    "Hits",
    "Index",
    "Scores",
    "Spec",
    "chamfer",
    "encode",
    "maxsim",
    "score_rankings",
]
