"""tokenprune: make Hugging Face vision-language models read fewer visual tokens, with one line."""

from .errors import TokenPruneError
from .methods import Reducer, get_method, list_methods, register
from .patching import PatchHandle, patch_model, unpatch_model
from .tokens import Selection, VisualTokens

__version__ = "0.1.0"

__all__ = [
    "PatchHandle",
    "Reducer",
    "Selection",
    "TokenPruneError",
    "VisualTokens",
    "get_method",
    "list_methods",
    "patch_model",
    "register",
    "unpatch_model",
]
