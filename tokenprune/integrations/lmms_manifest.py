"""What lmms-eval reads when it looks for models: a name and a path. It imports this in every run, so it is light."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The entry point `tokenprune` of the group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest("tokenprune", chat_class_path="tokenprune.integrations.lmms.TokenPrune")
