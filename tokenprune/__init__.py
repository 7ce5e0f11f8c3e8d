"""tokenprune: make Hugging Face vision-language models read fewer visual tokens, with one line."""

from .errors import TokenPruneError
from .methods import Reducer, get_method, list_methods, register
from .patching import PatchHandle, patch_model, unpatch_model
from .tokens import Selection, VisualTokens
from .towers import TowerHandle, patch_tower

__version__ = "0.1.0"

__all__ = [
    "PatchHandle",
    "Reducer",
    "Selection",
    "TokenPruneError",
    "TowerHandle",
    "VisualTokens",
    "get_method",
    "list_methods",
    "patch_model",
    "patch_tower",
    "register",
    "unpatch_model",
]
