"""What an index takes from a tower: its last tokens, and the attention that the patches received there.

A tower is never copied and never left changed: hooks live for one forward. To add a library: a `Reader` under its
class in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModelError
from ..kernels.attention import received_attention, row_attention
from ..towers.base import Library, find_tower, submodule
from ..towers.of_open_clip import OpenClip
from ..towers.of_timm import Timm

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Reader:
    """One library's towers."""

    def tokens(self, tower: Any, pixels: Tensor) -> Tensor:
        """(B, prefix + N, D) after the tower's last norm."""
        raise NotImplementedError

    def query_key(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, H, L, d_h), as attention compares them, of its input (B, L, D)."""
        raise NotImplementedError

    def has_class(self, tower: Any) -> bool:
        """The first token stands for the whole picture."""
        raise NotImplementedError

    def size(self, tower: Any) -> tuple[int, int]:
        """Height and width of a picture, in pixels."""
        raise NotImplementedError

    def colours(self, tower: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the three channels it was trained with."""
        raise NotImplementedError


class _Timm(Reader):
    def tokens(self, tower: Any, pixels: Tensor) -> Tensor:
        return tower.fc_norm(tower.forward_features(pixels))  # one of the two norms is an identity

    def query_key(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if not all(hasattr(attention, name) for name in ("qkv", "q_norm", "k_norm")):
            raise UnsupportedModelError(
                f"attention of class {type(attention).__name__} shows no queries and keys; use seeds='fps'"
            )
        q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return attention.q_norm(q), attention.k_norm(k)

    def has_class(self, tower: Any) -> bool:
        return tower.cls_token is not None

    def size(self, tower: Any) -> tuple[int, int]:
        return tuple(tower.patch_embed.img_size)

    def colours(self, tower: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        found: Any = getattr(tower, "pretrained_cfg", None) or {}
        found = found if isinstance(found, Mapping) else vars(found)
        return tuple(found.get("mean") or MEAN), tuple(found.get("std") or STD)


class _OpenClip(Reader):
    def tokens(self, tower: Any, pixels: Tensor) -> Tensor:
        return tower.ln_post(tower.transformer(tower._embeds(pixels)))

    def query_key(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, _ = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        q, k = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (q, k))
        return (attention.ln_q(q), attention.ln_k(k)) if hasattr(attention, "ln_q") else (q, k)

    def has_class(self, tower: Any) -> bool:
        return True

    def size(self, tower: Any) -> tuple[int, int]:
        return tuple(tower.image_size)

    def colours(self, tower: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        found = getattr(tower, "preprocess_cfg", None) or {}
        clip = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        return tuple(found.get("mean") or clip[0]), tuple(found.get("std") or clip[1])


READERS: dict[type[Library], type[Reader]] = {Timm: _Timm, OpenClip: _OpenClip}


def find_reader(module: nn.Module) -> tuple[nn.Module, Library, Reader]:
    """The tower itself, out of its wrapper, with what knows it; or `UnsupportedModelError`.

    An open_clip model is taken for its `visual`.
    """
    visual = getattr(module, "visual", None)
    tower, library = find_tower(visual if isinstance(visual, nn.Module) else module)
    if type(library) not in READERS:
        raise UnsupportedModelError(
            f"{type(tower).__name__} is no tower that can be indexed: a VisionTransformer of timm or of open_clip is"
        )
    library.check(tower, False)
    return tower, library, READERS[type(library)]()


def read(
    tower: nn.Module, library: Library, reader: Reader, pixels: Tensor, attention: bool
) -> tuple[Tensor, Tensor | None]:
    """(B, prefix + N, D) tokens and, where asked for, (B, N) the attention each patch receives in the last block.

    Of the class token's row, mean over heads; without a class token the mean over all tokens' rows.
    """
    last = submodule(library.blocks(tower)[-1], library.attention)
    found: list[Tensor] = []
    prefix = library.prefix(tower)

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        q, k = reader.query_key(module, args[0] if args else kwargs["query"])
        scale = q.shape[-1] ** -0.5
        if reader.has_class(tower):
            weight = row_attention(q[:, :, :1], k, scale).mean(1)
        else:
            weight = received_attention(q, k, scale)
        found.append(weight[:, prefix:])

    remove: Callable[[], None] | None = None
    if attention:
        remove = last.register_forward_pre_hook(see, with_kwargs=True).remove
    try:
        tokens = reader.tokens(tower, pixels)
    finally:
        if remove is not None:
            remove()
    return tokens, found[-1] if found else None
