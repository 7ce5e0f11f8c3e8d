"""The methods, one file each. Pure tensor code: nothing here knows of transformers or of hooks."""

from .base import Reducer, get_method, list_methods, method_class, register

__all__ = ["Reducer", "get_method", "list_methods", "method_class", "register"]
