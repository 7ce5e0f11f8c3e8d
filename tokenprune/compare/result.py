"""What a comparison found, in a form that can be summed up, drawn and written as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from ..bench.timer import Ratio
from ..tokens import FixationReport, ImageReport, PruneReport
from ..viz import kept_by_step
from ..viz.overlay import Box
from .examples import Example, Film
from .settings import Setting, keep_label

SCHEMA = "tokenprune.compare/1"
NONE, BLIND = "none", "blind"


def same(one: str, other: str) -> bool:
    """Whether two answers say the same: case, blanks and punctuation around them do not count."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" .,;:!?\"'").casefold()


@dataclass
class Answer:
    """One question answered under one setting; `error` when that failed."""

    example: int
    method: str
    keep: float | int | None  # None for `none` and `blind`
    text: str = ""
    tokens: list[int] = field(default_factory=list)  # that were generated, without an end token
    agrees: bool | None = None  # with the unpruned answer
    correct: bool | None = None  # None where no answer is expected
    report: PruneReport | None = None
    written: list[str] = field(
        default_factory=list
    )  # the text after 1, 2, ... tokens, where a gaze was followed
    error: str | None = None


@dataclass(frozen=True)
class Speed:
    """Times as a share of the unpruned model's, measured side by side."""

    prefill: Ratio
    decode: Ratio  # per generated token


@dataclass
class Summary:
    """One method at one budget over all examples. Means over the examples that did not fail."""

    method: str
    keep: float | int | None
    before: float | None = None  # visual tokens
    after: float | None = None
    equivalent: float | None = None  # layer average of the tokens alive
    read: float | None = None  # share of them that a decode step reads, on layer average; of decode methods
    agreement: float | None = None
    accuracy: float | None = None
    answers: int = 0
    kv_mib: float | None = None
    prefill: Ratio | None = None
    decode: Ratio | None = None
    failures: list[str] = field(default_factory=list)  # distinct messages

    @property
    def label(self) -> str:
        return "" if self.keep is None else keep_label(self.keep)


@dataclass
class Comparison:
    """Everything one run of `compare` found."""

    model: dict[str, Any]
    protocol: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    examples: list[Example]
    settings: list[Setting]
    answers: list[Answer] = field(default_factory=list)
    speeds: dict[Setting, Speed] = field(default_factory=dict)
    boxes: list[Box | None] = field(default_factory=list)  # an example's picture as far as it is read
    skipped: list[str] = field(default_factory=list)  # pictures left out, with the reason

    @property
    def video(self) -> bool:
        """Whether the questions are about clips."""
        return any(isinstance(example.picture, Film) for example in self.examples)

    def answer(self, example: int, method: str, keep: float | int | None = None) -> Answer | None:
        """The answer to one example under one setting, None when it was not asked."""
        found = (a for a in self.answers if (a.example, a.method, a.keep) == (example, method, keep))
        return next(found, None)

    def summaries(self) -> list[Summary]:
        """One row a setting: unpruned first, then blind, then the settings in their order."""
        rows = [self._summary(NONE, None), self._summary(BLIND, None)]
        return rows + [self._summary(s.method, s.keep) for s in self.settings]

    def _summary(self, method: str, keep: float | int | None) -> Summary:
        asked = [a for a in self.answers if (a.method, a.keep) == (method, keep)]
        good = [a for a in asked if a.error is None]
        out = Summary(method, keep, answers=len(good), failures=sorted({a.error for a in asked if a.error}))
        out.agreement = _mean([a.agrees for a in good])
        out.accuracy = _mean([a.correct for a in good])
        reports = [a.report for a in good if a.report is not None]
        if method in (NONE, BLIND):  # how much an unpruned prefill holds stands in any pruned one's report
            every = {a.example: a.report for a in self.answers if a.report is not None}
            out.before = _mean([r.before for r in every.values()])
            out.after = out.equivalent = out.before if method == NONE else 0.0 if every else None
            if method == NONE:
                out.kv_mib = _mean([r.kv_bytes_unpruned / 2**20 for r in every.values()])
                out.prefill, out.decode = self._baseline("prefill"), self._baseline("decode")
            return out
        out.before, out.after = _mean([r.before for r in reports]), _mean([r.after for r in reports])
        out.equivalent = _mean([r.equivalent_tokens * len(r.images) for r in reports])
        out.read = _mean([r.fixation.read_share for r in reports if r.fixation is not None])
        out.kv_mib = _mean([r.kv_bytes / 2**20 for r in reports])
        speed = self.speeds.get(Setting(method, keep)) if keep is not None else None
        if speed is not None:
            out.prefill, out.decode = speed.prefill, speed.decode
        return out

    def _baseline(self, phase: str) -> Ratio | None:
        """The unpruned model's own time: median of what every setting was compared with."""
        ratios = [getattr(s, phase) for s in self.speeds.values()]
        if not ratios:
            return None
        own = median(r.base_seconds for r in ratios)
        return Ratio(1.0, 1.0, 1.0, 1.0, sum(r.pairs for r in ratios), own, own)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: no NaN, no tensors, no paths."""
        return {
            "schema": SCHEMA,
            "versions": self.versions,
            "machine": self.machine,
            "model": self.model,
            "protocol": self.protocol,
            "examples": [
                {
                    "picture": e.picture.name,
                    "question": e.question,
                    "expected": e.expected,
                    "kind": e.kind,
                    "read": box,
                    **_frames(e),
                }
                for e, box in zip(self.examples, self.boxes, strict=True)
            ],
            "skipped": self.skipped,
            "summary": [dataclasses.asdict(s) for s in self.summaries()],
            "answers": [_answer_dict(a) for a in self.answers],
        }


def to_json(data: dict[str, Any]) -> str:
    """Strict JSON with one line an entry: readable, and a line of `grep` or `diff` is a whole answer."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            body = ",\n".join("  " + json.dumps(item, allow_nan=False) for item in value)
            text = f"[\n{body}\n ]"
        else:
            text = json.dumps(value, allow_nan=False)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return mean(known) if known else None


def _answer_dict(answer: Answer) -> dict[str, Any]:
    hidden = {"report", "written"}
    out = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer) if f.name not in hidden}
    report = answer.report
    if report is None:
        return out
    out["report"] = {
        "logical": report.logical,
        "physical": list(report.physical),
        "equivalent_tokens": report.equivalent_tokens,
        "flops": report.flops,
        "flops_unpruned": report.flops_unpruned,
        "kv_bytes": report.kv_bytes,
        "kv_bytes_unpruned": report.kv_bytes_unpruned,
        "images": [_image_dict(image) for image in report.images],
    }
    if report.fixation is not None:
        out["report"]["fixation"] = _fixation_dict(report.fixation)
    return out


def _image_dict(image: ImageReport) -> dict[str, Any]:
    return {
        "kind": image.kind,
        "grid": image.grid,
        "before": image.before,
        "after": image.after,
        "kept": list(image.kept),
        "owner": None if image.owner is None else image.owner.tolist(),
        "scores": None if image.scores is None else [_number(v) for v in image.scores.tolist()],
        "per_layer": list(image.per_layer),
        **({"per_step": kept_by_step(image)} if image.kind == "video" else {}),
    }


def _fixation_dict(fixation: FixationReport) -> dict[str, Any]:
    """With every choice as [decode step, focal layer, indices into the visual tokens]: batches here are of one row."""
    return {
        "steps": fixation.steps,
        "focal": fixation.focal,
        "visual": fixation.visual[0],
        "sparse_share": fixation.sparse_share,
        "read_share": fixation.read_share,
        "choices": [[step, layer, rows[0]] for step, layer, rows in fixation.choices],
    }


def _frames(example: Example) -> dict[str, Any]:
    """Which frames of a clip were looked at."""
    if not isinstance(example.picture, Film):
        return {}
    clip = example.picture.clip
    return {
        "frames": list(clip.indices),
        "timestamps": [_number(time) for time in clip.timestamps],
        "frames_in_clip": clip.total,
        "frames_missing": clip.missing,
    }


def _number(value: float) -> float | None:
    """Six digits, and null for what JSON has no word for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
