"""`VisionTransformer` of open_clip, the `visual` of its CLIP models: torch's packed attention, or open_clip's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModelError
from .base import Library, See, Undo, library


@library
class OpenClip(Library):
    """One class token always; `TimmModel` is a timm tower in a wrapper."""

    classes = ("open_clip.VisionTransformer",)
    wrappers = {"open_clip.TimmModel": "trunk"}
    attention, into_mlp, out_of_mlp = "attn", "ln_2", "ls_2"
    masks = ("attn_mask", "key_padding_mask")

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        return list(tower.transformer.resblocks)

    def prefix(self, tower: nn.Module) -> int:
        return 1

    def patches(self, tower: nn.Module) -> int | None:
        return tower.grid_size[0] * tower.grid_size[1]

    def check(self, tower: nn.Module, proportional: bool) -> None:
        if not tower.transformer.batch_first:
            raise UnsupportedModelError(
                "this open_clip tower runs its blocks as (tokens, batch, width); build it batch_first"
            )
        if any(getattr(b.attn, "logit_scale", None) is not None for b in self.blocks(tower)):
            raise UnsupportedModelError("scaled cosine attention of open_clip shows no keys to compare")

    def watch(self, attention: nn.Module, see: See) -> Undo:
        if hasattr(attention, "ln_k"):  # open_clip's own

            def after(module: nn.Module, args: Any, keys: Tensor) -> None:
                see(lambda: keys.mean(1))

            return attention.ln_k.register_forward_hook(after).remove

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            see(lambda: _mean_keys(attention, args[0]))

        return attention.register_forward_pre_hook(before).remove

    def extra_columns(self, attention: nn.Module) -> int:
        return 0 if hasattr(attention, "ln_k") else attention.head_dim

    def biased(self, attention: nn.Module, kwargs: dict[str, Any], bias: Tensor) -> dict[str, Any]:
        if hasattr(attention, "ln_k"):
            return {**kwargs, "attn_mask": bias[:, None, None]}
        return {**kwargs, "key_padding_mask": bias}  # torch adds it to the logits and broadcasts over queries

    def checkpoints(self, tower: nn.Module) -> bool:
        return bool(tower.transformer.grad_checkpointing)

    def pool(self, tower: nn.Module, whole: Callable[[Tensor], Tensor]) -> list[Undo]:
        pools = [getattr(tower, name, None) for name in ("attn_pool", "attn_pool_contrastive")]
        if pools[0] is not None:
            if getattr(tower, "attn_pool_type", "") == "cascade":
                del pools[1]  # reads what the first has pooled
            found = [m for m in pools if m is not None]
            return [
                m.register_forward_pre_hook(lambda _, args: (whole(args[0]), *args[1:])).remove for m in found
            ]
        if tower.pool_type != "avg":
            return []
        original = tower._global_pool

        @functools.wraps(original)
        def pool(x: Tensor) -> tuple[Tensor, Tensor]:
            return original(whole(x))[0], original(x)[1]

        tower.__dict__["_global_pool"] = pool
        return [lambda: tower.__dict__.pop("_global_pool", None)]


def _mean_keys(attention: nn.Module, x: Tensor) -> Tensor:
    """torch keeps the packed projection's result to itself; the mean over heads is a projection of its own."""
    width = attention.embed_dim
    weight = attention.in_proj_weight[width : 2 * width].unflatten(0, (attention.num_heads, -1)).mean(0)
    bias = attention.in_proj_bias
    if bias is not None:
        bias = bias[width : 2 * width].unflatten(0, (attention.num_heads, -1)).mean(0)
    return F.linear(x, weight, bias)
