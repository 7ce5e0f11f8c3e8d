"""`VisionTransformer` of timm: class, distillation and register tokens, pooling by a method of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .base import Library, See, Undo, library


@library
class Timm(Library):
    """Blocks of the plain kind; those that run MLP and attention side by side have no place between the two."""

    classes = ("timm.VisionTransformer",)
    attention, into_mlp, out_of_mlp = "attn", "norm2", "drop_path2"
    masks = ("attn_mask", "is_causal")

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        return list(tower.blocks)

    def prefix(self, tower: nn.Module) -> int:
        return tower.num_prefix_tokens

    def patches(self, tower: nn.Module) -> int | None:
        return getattr(tower.patch_embed, "num_patches", None)

    def check(self, tower: nn.Module, proportional: bool) -> None:
        for block in self.blocks(tower):
            kinds = [c.__name__ for c in type(block).__mro__]
            inner = [c.__name__ for c in type(getattr(block, "attn", None)).__mro__]
            if "Block" not in kinds or "Attention" not in inner:
                raise UnsupportedModelError(
                    f"timm blocks of class {kinds[0]} with {inner[0]} have no known place between attention and MLP; "
                    "patch_tower takes Block with Attention"
                )

    def watch(self, attention: nn.Module, see: See) -> Undo:
        def after(module: nn.Module, args: Any, keys: Tensor) -> None:
            see(lambda: keys.mean(1))

        return attention.k_norm.register_forward_hook(after).remove

    def biased(self, attention: nn.Module, kwargs: dict[str, Any], bias: Tensor) -> dict[str, Any]:
        return {**kwargs, "attn_mask": bias[:, None, None]}

    def checkpoints(self, tower: nn.Module) -> bool:
        return bool(tower.grad_checkpointing)

    def pool(self, tower: nn.Module, whole: Callable[[Tensor], Tensor]) -> list[Undo]:
        original = tower.pool

        @functools.wraps(original)
        def pool(x: Tensor, pool_type: str | None = None) -> Tensor:
            pools = tower.attn_pool is not None or (tower.global_pool if pool_type is None else pool_type)
            return original(whole(x) if pools else x, pool_type)  # without pooling these are the tokens

        tower.__dict__["pool"] = pool
        return [lambda: tower.__dict__.pop("pool", None)]
