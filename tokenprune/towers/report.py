"""What the last forward of a patched tower did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import LongTensor, Tensor, nn


@dataclass
class TowerReport:
    """One call of a tower on B pictures of N patches each."""

    pictures: int
    prefix: int  # class, register and distillation tokens; in none of the counts below
    before: int  # N
    per_block: list[int]  # patches that enter the MLP of each block that ran, and the next block
    owner: LongTensor  # (B, N) the patch whose place each one's group has; it is a member of it
    size: Tensor  # (B, after) members of each group, in the order of their places
    flops: float  # of the blocks (2 per multiply-accumulate), all pictures, comparing keys included
    flops_unmerged: float

    @property
    def after(self) -> int:
        return self.per_block[-1] if self.per_block else self.before

    def summary(self) -> str:
        return (
            f"{self.pictures} picture(s), {self.before} -> {self.after} patches, blocks {self.flops / 1e9:.2f} of "
            f"{self.flops_unmerged / 1e9:.2f} GFLOP"
        )


@dataclass(frozen=True)
class BlockSize:
    """Multiply-accumulates of one block, from its own weights: adapters count, norms and activations do not."""

    attention: int  # a token's, in the projections
    mlp: int
    heads: int  # x head width: a pair's, in the scores and again in their product with the values
    key: int  # width of what is compared
    extra: int  # a token's, for keys that the tower does not show

    @classmethod
    def of(cls, block: nn.Module, attention: nn.Module, extra_columns: int) -> BlockSize:
        inside = sum(p.numel() for p in attention.parameters() if p.dim() == 2)
        every = sum(p.numel() for p in block.parameters() if p.dim() == 2)
        heads, width = int(attention.num_heads), int(attention.head_dim)  # type: ignore[arg-type]
        return cls(inside, every - inside, heads * width, width, extra_columns * heads * width)

    def flops(self, prefix: int, before: int, after: int) -> float:
        """One picture with `before` patches in attention and `after` in the MLP."""
        n = prefix + before
        work = n * self.attention + 2 * n * n * self.heads + (prefix + after) * self.mlp
        if after < before:
            work += n * self.extra + (before - before // 2) * (before // 2) * self.key
        return 2.0 * work
