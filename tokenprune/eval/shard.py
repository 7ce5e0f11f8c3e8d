"""One run on several ranks: who answers what, and who sums up.

Files are all that ranks share, and none waits for another while there is something to answer. A rank goes through its
own share, then through whatever the others have not answered by then, from the far end: so the world may have another
size in the next run, and a rank that dies or lags is made up for by the others.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from .suite import Sample

UNIT = 4
"""Batches that whole pictures are packed into: only the last batch of a unit is not full."""
LOCK = "summing-up.lock"
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, accelerate launch
    (
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_LOCALID",
    ),  # srun by itself; not in the batch script around it
)

Batch = tuple[Sample, ...]


@dataclass(frozen=True)
class Shard:
    """This process among those of a run."""

    rank: int = 0
    world: int = 1
    local: int = 0  # among those of this machine

    @classmethod
    def from_environment(cls) -> Shard:
        """As `torchrun`, `accelerate launch` or `srun` tell it; alone where none of them does."""
        for names in _LAUNCHERS:
            rank, world, local = (os.environ.get(name, "") for name in names)
            if rank.isdecimal() and world.isdecimal() and int(rank) < int(world):
                return cls(int(rank), int(world), int(local) if local.isdecimal() else int(rank))
        return cls()

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`0/3`: the first of three processes that no launcher started. Raises `InputError`."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not int(found[1]) < int(found[2]):
            raise InputError(f"shard {text!r}: of three, 0/3, 1/3 or 2/3")
        return cls(int(found[1]), int(found[2]), int(found[1]))

    def device(self, asked: str) -> str:
        """A bare `cuda` is this rank's own GPU; anything else is taken as it is."""
        if asked != "cuda" or self.world == 1 or not torch.cuda.is_available():
            return asked
        return f"cuda:{self.local % torch.cuda.device_count()}"

    def order(self, units: Sequence[Sequence[Batch]], rows: int) -> Iterator[tuple[Batch, int]]:
        """Every batch of the run, and the row to begin with: this rank's share, then the others' backwards.

        Those who help at the same batch begin at different rows, so that they rarely do the same twice.
        """
        own = units[self.rank :: self.world]
        yield from ((batch, 0) for unit in own for batch in unit)
        others = [unit for place, unit in enumerate(units) if place % self.world != self.rank]
        yield from (
            (batch, self.rank * rows // self.world) for unit in reversed(others) for batch in unit[::-1]
        )


def plan_batches(samples: Sequence[Sample], size: int) -> list[list[Batch]]:
    """Units of whole pictures, each cut into batches of `size`. A function of the suite: who shares a batch, which can
    change an answer, depends neither on the world nor on what is answered already."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    packed: list[list[Sample]] = []
    for group in groups.values():
        if packed and len(packed[-1]) + len(group) <= UNIT * size:
            packed[-1] += group
        else:
            packed.append(list(group))
    return [[tuple(unit[i : i + size]) for i in range(0, len(unit), size)] for unit in packed]


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever a whole file is written anew; None: there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


@contextlib.contextmanager
def one_at_a_time(folder: Path, shard: Shard) -> Iterator[None]:
    """Held by one rank after another; a rank that dies lets go of it. Where a file system has no locks, nobody waits:
    what is done inside is then done more than once, to the same end."""
    with contextlib.ExitStack() as stack:
        if shard.world > 1:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                file = stack.enter_context(open(folder / LOCK, "ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
