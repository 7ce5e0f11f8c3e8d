"""What every phase needs: a schedule, a journal, checkpoints that survive being killed."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


def device() -> torch.device:
    """A CUDA device where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def helpers() -> int:
    """Processes that draw while a CUDA device trains; a processor draws and trains in turn."""
    return max(1, min(12, (os.cpu_count() or 2) - 2)) if torch.cuda.is_available() else 0


class _Drawn(IterableDataset):
    def __init__(self, make: Callable[[random.Random], Any], seed: int) -> None:
        self._make, self._seed = make, seed

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        rng = random.Random(self._seed * 64 + (worker.id if worker else 0))
        while True:
            yield self._make(rng)


def drawn(make: Callable[[random.Random], Any], seed: int, workers: int | None = None) -> Iterator[Any]:
    """What `make` draws, without end; by `workers` processes of their own where there are any."""
    data = _Drawn(make, seed)
    workers = helpers() if workers is None else workers
    if not workers:
        return iter(data)
    return iter(DataLoader(data, batch_size=None, num_workers=workers, collate_fn=lambda item: item))


def optimiser(modules: Iterable[nn.Module], rate: float, decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW that decays matrices only: a decayed gain, bias or embedding row fights its own use."""
    matrices, others, seen = [], [], set()
    for module in modules:
        for name, weight in module.named_parameters():
            if not weight.requires_grad or id(weight) in seen:
                continue
            seen.add(id(weight))
            plain = weight.ndim >= 2 and "embed" not in name and "position" not in name
            (matrices if plain else others).append(weight)
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def cosine(step: int, total: int, warm_up: int, floor: float = 0.05) -> float:
    """Multiplier of the learning rate: a linear climb, then half a cosine down to `floor`."""
    if step < warm_up:
        return (step + 1) / warm_up
    share = min(1.0, (step - warm_up) / max(1, total - warm_up))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def schedule(step: int, share: float, warm_up: int, floor: float) -> float:
    """Multiplier of the learning rate of a timed phase: a climb of `warm_up` steps, on half a cosine down to `floor`
    over the share of the time that is over."""
    return min(1.0, (step + 1) / warm_up) * cosine(int(share * 1000), 1000, 0, floor)


def clip_gradients(modules: Iterable[nn.Module], most: float = 1.0) -> None:
    nn.utils.clip_grad_norm_([weight for module in modules for weight in module.parameters()], most)


def set_rate(optim: torch.optim.Optimizer, rate: float) -> None:
    for group in optim.param_groups:
        group["lr"] = rate


class Journal:
    """JSON lines: one object a call, with the phase, the step and the seconds since the phase began."""

    def __init__(self, path: Path, phase: str, seconds: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._phase, self._start = path, phase, time.time() - seconds

    @property
    def seconds(self) -> float:
        return time.time() - self._start

    def write(self, step: int, **numbers: float | str) -> None:
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in numbers.items()}
        line = {"phase": self._phase, "step": step, "seconds": round(self.seconds, 1), **rounded}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def save(path: Path, **state: object) -> None:
    """Write-then-rename, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load(path: Path) -> dict | None:
    """The state `save` wrote, or None where there is none yet. Only tensors and plain values are read."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


class Team:
    """Processes of one machine that train together, as `RANK` and `WORLD_SIZE` say; alone without them."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.size > 1:
            dist.init_process_group("gloo")

    def agree(self, value: float) -> float:
        """The first process's value, so that all stop, and change their rate, at the same step."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()

    def average_gradients(self, weights: list[nn.Parameter]) -> None:
        if self.size == 1:
            return
        grads = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
            grad.copy_(part.view_as(grad))

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


class Average:
    """Running means of named numbers between two journal lines, over all steps."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, **numbers: torch.Tensor | float) -> None:
        self._count += 1
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def take(self) -> dict[str, float]:
        means = {name: value / max(1, self._count) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Means:
    """Running means of named numbers between two journal lines, each over the times it came."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, **numbers: torch.Tensor | float) -> None:
        for name, value in numbers.items():
            pair = self._sums.setdefault(name, [0.0, 0])
            pair[0] += float(value)
            pair[1] += 1

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


class Run:
    """The clock, the journal and the checkpoints around the steps of a phase.

        run = Run(out, name, minutes, state, contents)
        for seconds in run.steps():
            ...  # one step
            run.mean.add(loss=loss)

    `state` is what `out/<name>.pt` held, or None; there `contents()` goes, with the step and the seconds. Of a team
    the first process writes.
    """

    def __init__(
        self, out: Path, name: str, minutes: float, state: dict | None, contents: Callable[[], dict[str, Any]],
        journal_every: int = 50, keep_every: float = 90, team: Team | None = None,
        mean: Average | Means | None = None,
    ) -> None:  # fmt: skip
        self.step, spent = (int(state["step"]), float(state["seconds"])) if state else (0, 0.0)
        self.mean = mean or Average()
        self._path, self._minutes, self._contents = out / f"{name}.pt", minutes, contents
        self._journal, self._team = Journal(out / "log.jsonl", name, spent), team
        self._journal_every, self._keep_every = journal_every, keep_every
        self._writes = team is None or team.rank == 0

    def _seconds(self) -> float:
        return self._team.agree(self._journal.seconds) if self._team else self._journal.seconds

    def steps(self) -> Iterator[float]:
        """The seconds since the phase began, once a step, until its minutes are over."""
        saved = time.time()
        while (seconds := self._seconds()) < 60 * self._minutes:
            yield seconds
            self.step += 1
            if self._writes and self.step % self._journal_every == 0:
                self._journal.write(self.step, **self.mean.take())
            if time.time() - saved > self._keep_every:
                self._keep()
                saved = time.time()
        self._keep()

    def _keep(self) -> None:
        if self._writes:
            save(self._path, **self._contents(), step=self.step, seconds=self._journal.seconds)
