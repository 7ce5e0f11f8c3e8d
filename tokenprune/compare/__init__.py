"""One model, a few pictures and questions, several methods and budgets side by side. Prints nothing."""

from ..chat import Chat, check_model, load_chat
from .examples import Example, bundled_examples, make_examples
from .figures import write_figures
from .result import Comparison, to_json
from .run import compare
from .settings import Setting, check_settings, parse_keeps

__all__ = [
    "Chat",
    "Comparison",
    "Example",
    "Setting",
    "bundled_examples",
    "check_model",
    "check_settings",
    "compare",
    "load_chat",
    "make_examples",
    "parse_keeps",
    "to_json",
    "write_figures",
]
