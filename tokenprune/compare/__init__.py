"""One model, a few pictures or clips with questions, several methods and budgets side by side. Prints nothing."""

from ..chat import Chat, check_model, default_model, load_chat
from .examples import CLIP_FRAMES, Example, Film, bundled_examples, make_clip_examples, make_examples
from .figures import write_figures
from .result import Comparison, to_json
from .run import compare
from .settings import METHODS, VIDEO_METHODS, Setting, check_settings, parse_keeps, split_methods

__all__ = [
    "CLIP_FRAMES",
    "METHODS",
    "VIDEO_METHODS",
    "Chat",
    "Comparison",
    "Example",
    "Film",
    "Setting",
    "bundled_examples",
    "check_model",
    "check_settings",
    "compare",
    "default_model",
    "load_chat",
    "make_clip_examples",
    "make_examples",
    "parse_keeps",
    "split_methods",
    "to_json",
    "write_figures",
]
