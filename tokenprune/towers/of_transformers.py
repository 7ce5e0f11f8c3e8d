"""CLIP and SigLIP towers of transformers: attention through its interface, one head that pools by attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .base import Library, See, Undo, library

ADDS_A_MASK = ("eager", "sdpa")
"""Implementations that take logits of keys as a mask; the others would ignore it or fail."""


@library
class Transformers(Library):
    """`CLIPVisionModel`, `SiglipVisionModel` and what wraps them."""

    classes = (
        "transformers.CLIPVisionModel",
        "transformers.CLIPVisionTransformer",
        "transformers.SiglipVisionModel",
        "transformers.SiglipVisionTransformer",
    )
    wrappers = {
        "transformers.CLIPVisionModelWithProjection": "vision_model",
        "transformers.TimmWrapperModel": "timm_model",
    }
    attention, into_mlp, out_of_mlp = "self_attn", "layer_norm2", "mlp"
    masks = ("attention_mask",)

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        return list(next(m for m in tower.modules() if isinstance(m, nn.ModuleList)))

    def prefix(self, tower: nn.Module) -> int:
        return sum(name.split(".")[-1] == "class_embedding" for name, _ in tower.named_parameters())

    def patches(self, tower: nn.Module) -> int | None:
        config: Any = tower.config
        rows, columns = (a // b for a, b in zip(_pair(config.image_size), _pair(config.patch_size)))
        return rows * columns

    def check(self, tower: nn.Module, proportional: bool) -> None:
        config: Any = tower.config
        chosen = config._attn_implementation
        if proportional and chosen not in ADDS_A_MASK:
            raise UnsupportedModelError(
                f"proportional attention adds to the logits, and attn_implementation={chosen!r} takes no such mask; "
                "use tower.set_attn_implementation('sdpa'), or patch_tower(..., proportional=False)"
            )

    def watch(self, attention: nn.Module, see: See) -> Undo:
        heads = attention.num_heads

        def after(module: nn.Module, args: Any, keys: Tensor) -> None:
            see(lambda: keys.unflatten(-1, (heads, -1)).mean(2))

        return attention.k_proj.register_forward_hook(after).remove

    def biased(self, attention: nn.Module, kwargs: dict[str, Any], bias: Tensor) -> dict[str, Any]:
        self.check(attention, True)  # it may have been changed since the patch
        return {**kwargs, "attention_mask": bias[:, None, None]}

    def checkpoints(self, tower: nn.Module) -> bool:
        return any(b.training and getattr(b, "gradient_checkpointing", False) for b in self.blocks(tower))

    def pool(self, tower: nn.Module, whole: Callable[[Tensor], Tensor]) -> list[Undo]:
        heads = [m for name, m in tower.named_modules() if name.split(".")[-1] == "head"]
        return [
            m.register_forward_pre_hook(lambda _, args: (whole(args[0]), *args[1:])).remove for m in heads
        ]


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
