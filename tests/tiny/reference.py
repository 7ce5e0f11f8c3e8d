"""The independent reference: plain model, whole sequences, no cache, dropped tokens masked. Nothing of tokenprune.

A token dropped at layer k is a column that no query sees in the layers >= k. Its own row goes on being computed
and is meaningless; rows of kept tokens are exact. Positions are those of the whole sequence.
Where that is no reference, because layers carry a state from token to token, `way="rows"` runs rows alone (`rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .rows import rows_alone


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Eager attention inside: the only kind whose masks always exist as 4-D float tensors."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [(config, config._attn_implementation) for config in configs]
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def text_model(model: nn.Module) -> nn.Module:
    """The text model, found without tokenprune: the module with `layers` beside the token embedding."""
    embedding = model.get_input_embeddings()
    for module in model.modules():
        if embedding in module.children() and isinstance(getattr(module, "layers", None), nn.ModuleList):
            return module
    raise LookupError(f"no decoder layers in {type(model).__name__}")


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The text model's layers."""
    return text_model(model).layers


@contextmanager
def masked_columns(model: nn.Module, dropped: Tensor, k: int) -> Iterator[None]:
    """Hides the columns of `dropped` (B, L) from every query of the decoder layers >= k."""

    def hide(module, args, kwargs):
        mask = kwargs["attention_mask"]
        if mask is None or mask.ndim != 4 or not mask.is_floating_point():
            raise RuntimeError("the reference needs the eager 4-D float mask")
        # min, not -inf: a row with nothing left to see (padding) must give a mean, not NaN.
        # Columns are counted from the left, where the sequence starts: there is no cache.
        hidden = mask.masked_fill(dropped[:, None, None], torch.finfo(mask.dtype).min)
        return args, kwargs | {"attention_mask": hidden}

    hooks = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in decoder_layers(model)[k:]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def masked_conversation(model: nn.Module, dropped: Tensor, k: int) -> Iterator[None]:
    """The plain model with its own dynamic cache, eager; no query of the layers >= k sees the columns of `dropped`.

    `dropped` (B, L) is of the conversation's first L tokens; what comes later stays. Beams see what their prompt sees.
    For whatever may be called inside: several turns, beams, drafts. Unlike whole sequences without a cache it is also
    right where earlier tokens would look ahead at later turns, as in a prefix model.
    """

    total = 0

    def measure(module, args, kwargs):
        nonlocal total
        cache, embeds = kwargs.get("past_key_values"), kwargs["inputs_embeds"]
        total = (0 if cache is None else cache.get_seq_length()) + embeds.shape[1]

    def hide(module, args, kwargs):
        mask = kwargs["attention_mask"]
        if mask is None or mask.ndim != 4 or not mask.is_floating_point():
            raise RuntimeError("the reference needs the eager 4-D float mask")
        hidden = dropped.repeat_interleave(mask.shape[0] // dropped.shape[0], 0)
        hidden = nn.functional.pad(hidden, (0, max(total - hidden.shape[1], 0)))[:, :total]
        hidden = hidden[:, total - mask.shape[3] :]  # a sliding window has let go of the first columns
        lowest = torch.finfo(mask.dtype).min
        return args, kwargs | {"attention_mask": mask.masked_fill(hidden[:, None, None], lowest)}

    hooks = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in decoder_layers(model)[k:]]
    hooks.append(text_model(model).register_forward_pre_hook(measure, with_kwargs=True))
    try:
        with fresh_positions(model), eager(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def without(model: nn.Module, dropped: Tensor, k: int, way: str = "masked") -> Iterator[None]:
    """Whole sequences without a cache: the layers >= k do without the tokens of `dropped` (B, L)."""
    rest = masked_columns(model, dropped, k) if way == "masked" else rows_alone(text_model(model), dropped, k)
    with fresh_positions(model), eager(model), rest:
        yield


@contextmanager
def conversation(model: nn.Module, dropped: Tensor, k: int, way: str = "masked") -> Iterator[None]:
    """The same for calls that go on from a cache: turns, beams, drafts."""
    with masked_conversation(model, dropped, k) if way == "masked" else without(model, dropped, k, way):
        yield


@contextmanager
def fresh_positions(model: nn.Module) -> Iterator[None]:
    """M-RoPE models remember `rope_deltas` from call to call: none comes in, and the caller's are left alone."""
    base = model.base_model
    if not hasattr(base, "rope_deltas"):
        yield
        return
    before, base.rope_deltas = base.rope_deltas, None
    try:
        yield
    finally:
        base.rope_deltas = before


@torch.no_grad()
def reference_prefill(
    model: nn.Module, inputs: dict[str, Tensor], dropped: Tensor, k: int = 0, way: str = "masked"
) -> Tensor:
    """Logits (B, L, V) of the unpatched model; right at every position that is not dropped."""
    with without(model, dropped, k, way):
        return model(**inputs, use_cache=False).logits


def append_tokens(model: nn.Module, inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """`inputs` continued by generated or user tokens (B, n), with the same images."""
    out = dict(inputs)
    out["input_ids"] = torch.cat([inputs["input_ids"], tokens], -1)
    if "attention_mask" in inputs:
        out["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], -1)
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            # PaliGemma reads 0 as "prompt, sees everything" and 1 as "answer, causal".
            value = int(model.config.model_type == "paligemma")
            out[name] = torch.cat([inputs[name], torch.full_like(tokens, value)], -1)
    return out


def reference_generate(
    model: nn.Module,
    inputs: dict[str, Tensor],
    dropped: Tensor,
    k: int = 0,
    steps: int = 4,
    way: str = "masked",
) -> tuple[Tensor, list[Tensor]]:
    """Greedy tokens (B, steps) and the logits (B, V) behind each; the whole sequence anew at every step."""
    tokens, logits = [], []
    for _ in range(steps):
        logits.append(reference_prefill(model, inputs, dropped, k, way)[:, -1])
        tokens.append(logits[-1].argmax(-1, keepdim=True))
        inputs = append_tokens(model, inputs, tokens[-1])
        dropped = torch.cat([dropped, torch.zeros_like(tokens[-1], dtype=torch.bool)], -1)
    return torch.cat(tokens, -1), logits
