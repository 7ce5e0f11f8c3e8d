"""The Python lines that do what a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..methods import Reducer, method_class


def lines_of(
    model: str,
    file: str,
    question: str,
    methods: Sequence[Reducer],
    *,
    frames: int | None = None,
    max_new_tokens: int = 32,
    options: dict[str, str] | None = None,
) -> str:
    """A program of its own; the picture or clip is named without its folder. frames: of a clip, else None."""
    given = "".join(f", {k}={v!r}" for k, v in (options or {}).items())
    name = Path(file).name
    reader = "load_image" if frames is None else "load_clip"
    read = f"{reader}({name!r})" if frames is None else f"{reader}({name!r}, frames={frames})"
    pairs = "\n".join(f"    ({m.name!r}, {hyper_of(m)!r})," for m in methods)
    return f"""from tokenprune import patch_model
from tokenprune.chat import load_chat
from tokenprune.media import {reader}

chat = load_chat({model!r}{given})
inputs = chat.inputs({read}, {question!r})
print("unpruned:", chat.answer(inputs, {max_new_tokens}))
for method, hyper in [
{pairs}
]:
    with patch_model(chat.model, method, chat.processor, **hyper) as handle:
        print(f"{{method}}:", chat.answer(inputs, {max_new_tokens}))
        print(handle.report.summary())
"""


def hyper_of(method: Reducer) -> dict[str, object]:
    """`keep`, and the other hyper-parameters where they differ from the method's own."""
    usual = method_class(method.name)().hyper()
    return {k: v for k, v in method.hyper().items() if k == "keep" or v != usual[k]}
