"""A bench's lines and whether they meet their goals."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .timer import Ratio

SCHEMA = "tokenprune.bench/1"


class Verdict(str, enum.Enum):
    """Medians and minima can disagree on a shared machine; then neither is hidden."""

    MET = "met"
    MEDIAN_ONLY = "met (median)"
    MINIMUM_ONLY = "met (minimum)"
    MISSED = "missed"
    INFO = ""

    @classmethod
    def of(cls, ratio: Ratio, goal: float | None) -> Verdict:
        if goal is None:
            return cls.INFO
        by_median, by_minimum = ratio.median <= goal, ratio.minimum <= goal
        if by_median and by_minimum:
            return cls.MET
        if by_median:
            return cls.MEDIAN_ONLY
        return cls.MINIMUM_ONLY if by_minimum else cls.MISSED

    @classmethod
    def of_count(cls, more: int, goal: float | None) -> Verdict:
        if goal is None:
            return cls.INFO
        return cls.MET if more <= goal else cls.MISSED


@dataclass(frozen=True)
class Line:
    """One comparison: `what` measured against `base`, as a ratio of times or a difference of operations."""

    size: str
    what: str
    base: str
    ratio: Ratio | None = None
    verdict: Verdict = Verdict.INFO
    goal: float | None = None
    ops: int | None = None
    base_ops: int | None = None
    note: str = ""

    @classmethod
    def judged(
        cls,
        size: str,
        what: str,
        base: str,
        ratio: Ratio,
        goals: Mapping[str, float],
        goal: str | None = None,
    ) -> Line:
        """With the goal named `goal` (by default `what`), where there is one."""
        limit = goals.get(goal or what)
        return cls(size, what, base, ratio, Verdict.of(ratio, limit), limit)


@dataclass(frozen=True)
class Cell:
    """One length and batch of a grid. Milliseconds are one layer's medians; ratios are times to the dense one's."""

    size: str
    visual: int
    text: int
    batch: int
    chosen: int  # visual keys a sparse layer reads
    caches: int = 0  # distinct ones that were read in turn
    dense_path: str = ""  # the fastest
    trial_ms: dict[str, float] = field(default_factory=dict)  # of every dense path
    noise: Ratio | None = None  # the dense path against itself
    dense_ms: float | None = None
    focal_ms: float | None = None  # with its choice and the index the sparse layers read by
    sparse_ms: float | None = None
    linears_ms: float | None = None  # q, k, v, output and feed-forward
    head_ms: float | None = None  # the vocabulary's projection, once a step
    dense_share: float | None = None  # of attention in the dense step
    # By the number of focal layers, against dense: time of all layers' attention, of the whole step, keys read.
    attention: dict[str, float] = field(default_factory=dict)
    step: dict[str, float] = field(default_factory=dict)
    ideal: dict[str, float] = field(default_factory=dict)
    verdict: str = ""  # does it pay, with 3 focal layers
    note: str = ""  # why it was left out


@dataclass(frozen=True)
class ModelRow:
    """One method on one model of real size. Shares are of the time to the first token; bytes and FLOPs a prompt's."""

    model: str
    method: str
    keep: float | None
    layers: int  # decoder layers measured
    of_layers: int  # that the checkpoint has
    tower_layers: int
    dtype: str
    visual: int
    text: int
    kept: int = 0  # visual tokens
    equivalent: float | None = None  # of them, mean over layers
    # Times as a share of the unpatched model's beside them: "first" token, "prompt" (first without the tower),
    # each "token" after the first.
    ratios: dict[str, Ratio] = field(default_factory=dict)
    # The same of a free choice of as many tokens, where that is defined.
    ideal: dict[str, Ratio] = field(default_factory=dict)
    tower: float = 0.0  # share
    scoring: float = 0.0  # share of the methods' `select`
    flops: float = 0.0  # of the language model
    flops_unpruned: float = 0.0
    kv_bytes: int = 0
    kv_bytes_unpruned: int = 0
    peak_bytes: int = 0  # above the weights
    peak_bytes_unpruned: int = 0
    note: str = ""  # why it was not measured


@dataclass(frozen=True)
class KernelRow:
    """One kernel against what the machine can do, measured on the spot."""

    kernel: str
    shapes: str
    dtype: str
    backend: str  # "torch" or "triton"
    seconds: float
    bytes: int  # arguments read once, answers written once
    flops: int  # matrix products of the reference
    least_seconds: float  # at the ceilings
    bound: str  # by "bytes" or "flops"

    @property
    def share(self) -> float:
        """Of the ceiling."""
        return self.least_seconds / self.seconds


@dataclass
class BenchResult:
    """Everything a bench found."""

    versions: dict[str, str]
    machine: dict[str, Any]
    protocol: dict[str, Any]
    sizes: dict[str, str]  # name -> what it is
    lines: list[Line] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)  # of the sizes that are a grid
    models: list[ModelRow] = field(default_factory=list)
    kernels: list[KernelRow] = field(default_factory=list)
    # What the kernels are held against: bytes a second, and FLOPs a second of each dtype.
    ceilings: dict[str, float] = field(default_factory=dict)

    @property
    def missed(self) -> list[Line]:
        return [line for line in self.lines if line.verdict is Verdict.MISSED]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        return {
            "schema": SCHEMA,
            "versions": self.versions,
            "machine": self.machine,
            "protocol": self.protocol,
            "sizes": self.sizes,
            "lines": [{**dataclasses.asdict(line), "verdict": line.verdict.value} for line in self.lines],
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
            "models": [dataclasses.asdict(row) for row in self.models],
            "ceilings": self.ceilings,
            "kernels": [{**dataclasses.asdict(row), "share": row.share} for row in self.kernels],
        }
