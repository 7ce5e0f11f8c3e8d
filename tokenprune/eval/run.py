"""`evaluate`: one model, one suite, every row of a table. Returns data, prints nothing, loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..bench.machine import machine, versions
from ..budget import count
from ..chat import Chat, Medium, load_chat
from ..errors import BudgetError, InputError, TokenPruneError, UnsupportedModelError
from ..media import Clip
from ..methods import Reducer
from ..patching import patch_model
from .answer import Answer, Answerer
from .benchmarks.registry import get_scorer
from .coverage import measure_coverage
from .efficiency import measure_rows
from .journal import Journal, read_records, write_file, write_samples
from .medium import fewer
from .results import Results, score_run
from .rows import BASELINES, FRAMES, PLAIN, RESIZE, SEEDS, Item, Row, plan_rows
from .sources import load_suite
from .suite import Sample, Suite
from .totals import facts_of

RUN = "run.json"
SCHEMA = "tokenprune.run/1"
Tick = Callable[[int, int, str], None]
"""Called with (answers there, answers in all, what is being done)."""


@dataclass(frozen=True)
class Status:
    """Whether a row can be asked of this model at all, and if not why."""

    state: str = "ok"  # "ok" | "floor": the budget is below the method's floor | "unavailable"
    reason: str = ""
    floor: float | None = None  # share of the visual tokens


def evaluate(
    model: str | Chat,
    suite: str | Suite | dict[str, Any] = "scenes",
    methods: Sequence[Item] = (),
    keeps: Sequence[float | int] = (0.5, 0.25, 0.111, 0.056),
    *,
    out: str | Path,
    batch: int = 8,
    seeds: int = SEEDS,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    metric: str | None = None,
    margin: float = 0.01,
    efficiency: int = 4,
    coverage: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    dtype: str = "auto",
    name: str = "",
    home: Path | None = None,
    force: bool = False,
    tick: Tick | None = None,
) -> Results:
    """Answer a suite unpruned, blind, under the baselines and under `methods` at every keep; then time the rows.

    Args:
        model: an embedded model, a local folder, a Hugging Face id, or a loaded `Chat`.
        suite: see `load_suite`.
        methods, keeps, seeds: see `plan_rows`; `random`, `uniform`, `pool` and `resize` are always there.
        out: the run's folder. A run that was interrupted goes on where it stopped, and ends with the numbers of an
            undisturbed one; a folder with another run in it is refused (`force` goes on all the same).
        batch: samples answered together; part of the run, because it can change answers.
        limit: most samples, in whole groups; the results then say "subset".
        margin: score a method may lose and still be called non-inferior.
        efficiency: samples timed in the separate pass, batch 1; 0 leaves it out.
        coverage: samples on which the distance of every visual token to the nearest one left is taken; 0 leaves it out.
        threads: torch threads; None leaves them alone.

    A sample that fails is recorded with the reason, tried again by the next run, and never scored as wrong.
    Raises `TokenPruneError` subclasses for what can be told beforehand, and when every answer of the model failed.
    """
    asked = suite if isinstance(suite, Suite) else load_suite(suite, home)
    rows = plan_rows(methods, keeps, seeds, asked.video, home)
    asked = replace(
        asked, max_new_tokens=max_new_tokens or asked.max_new_tokens, metric=metric or asked.metric
    ).limited(limit)
    _check_metric(asked)
    if batch < 1:
        raise InputError(f"batch {batch}: at least 1")
    chat = model if isinstance(model, Chat) else load_chat(model, device=device, dtype=dtype)
    folder = Path(out)
    facts = run_facts(chat, asked, batch)
    with _threads(threads), Journal(folder, facts, force=force) as journal:
        answerer = Answerer(chat, asked.max_new_tokens)
        statuses = check_rows(chat, answerer, asked, rows)
        write_samples(folder, [_sample_record(s) for s in asked.samples])
        runner = _Runner(
            answerer, journal, asked, [r for r, s in zip(rows, statuses) if s.state == "ok"], tick
        )
        body = {
            "schema": SCHEMA,
            "name": name or asked.name,
            "suite": {
                "name": asked.name, **asked.about, "hash": asked.hash(), "samples": len(asked.samples),
                "subset": asked.subset, "metric": asked.metric, "also": list(asked.also), "graded": asked.graded,
                "majority": asked.majority(),
            },
            "model": {k: v for k, v in facts["model"].items() if k != "processor"},
            "protocol": {
                "decoding": "greedy", "batch": batch, "max_new_tokens": asked.max_new_tokens,
                "margin": margin, "blind": answerer.blind,
            },
            "versions": versions(),
            "machine": machine(torch.device(chat.device)),
            "rows": [_row_record(row, status) for row, status in zip(rows, statuses)],
        }  # fmt: skip
        write_file(folder / RUN, json.dumps(body, indent=1))
        runner.run(batch)
        if efficiency:
            measure_rows(folder, answerer, asked, runner.rows, efficiency, facts, tick=tick)
        if coverage:
            measure_coverage(folder, answerer, asked, runner.rows, coverage, facts, tick)
    return score_run(folder)


def _check_metric(suite: Suite) -> None:
    """Raise before the run what a metric would say of a sample's right answers after it."""
    for name in (suite.metric, *suite.also):
        rate = get_scorer(name).each
        for sample in suite.samples:
            if sample.answers:
                try:
                    rate("", list(sample.answers), facts_of(_sample_record(sample)))
                except InputError as error:
                    raise InputError(f"suite {suite.name}, sample {sample.id}: {error}") from error


class _Runner:
    """Goes through the batches, each under all rows, and writes down what came out."""

    def __init__(
        self, answerer: Answerer, journal: Journal, suite: Suite, rows: Sequence[Row], tick: Tick | None
    ) -> None:
        self.answerer, self.journal, self.suite, self.rows = answerer, journal, suite, list(rows)
        self.tick = tick
        self.known = read_records(journal.folder)
        self.total = len(suite.samples) * len(self.rows)
        self.done = sum(self._answered(row, sample) for row in self.rows for sample in suite.samples)

    def _answered(self, row: Row, sample: Sample) -> bool:
        record = self.known.get((row.key, sample.id))
        return record is not None and "error" not in record

    def run(self, size: int) -> None:
        """Every batch of the plan. The plan depends on the suite only, so who shares a batch never changes."""
        samples = self.suite.samples
        for start in range(0, len(samples), size):
            self._batch(samples[start : start + size])

    def _batch(self, batch: Sequence[Sample]) -> None:
        rows = [r for r in self.rows if not all(self._answered(r, s) for s in batch)]
        if not rows:
            return
        loaded: list[tuple[Sample, Medium]] = []
        broken: dict[str, str] = {}
        for sample in batch:
            try:
                loaded.append((sample, sample.picture.load()))
            except (TokenPruneError, OSError) as error:
                broken[sample.id] = _message(error, sample)
        with self.answerer.shared.held():
            for row in rows:
                found: dict[str, Answer | str] = dict(broken)
                if loaded:
                    found.update(self._answers(row, loaded))
                self._write(row, batch, found)

    def _write(self, row: Row, batch: Sequence[Sample], found: dict[str, Answer | str]) -> None:
        records = [_record(row, s, found[s.id], self.known) for s in batch if not self._answered(row, s)]
        self.journal.append(records)
        for record in records:
            self.known[record["row"], record["id"]] = record
        self.done += sum("error" not in r for r in records)
        if self.tick is not None:
            self.tick(self.done, self.total, row.key)

    def _answers(self, row: Row, loaded: Sequence[tuple[Sample, Medium]]) -> dict[str, Answer | str]:
        """Answers by sample id; where the batch fails, each sample is asked alone, so that only the guilty fail."""
        samples = [s for s, _ in loaded]
        try:
            answers = self.answerer.answer(row, [i for _, i in loaded], [s.question for s in samples])
            return {s.id: a for s, a in zip(samples, answers, strict=True)}
        except Exception as error:  # one sample must not end a run of many
            if len(loaded) == 1:
                return {samples[0].id: _message(error, samples[0])}
        out: dict[str, Answer | str] = {}
        for pair in loaded:
            out.update(self._answers(row, [pair]))
        return out


def _record(row: Row, sample: Sample, found: Answer | str, known: dict[Any, Any]) -> dict[str, Any]:
    before = known.get((row.key, sample.id))
    place = {"row": row.key, "id": sample.id, "attempt": 1 + (before or {}).get("attempt", 0)}
    return {**place, "error": found} if isinstance(found, str) else {**place, **asdict(found)}


def _message(error: BaseException, sample: Sample) -> str:
    text = str(error) if isinstance(error, TokenPruneError) else f"{type(error).__name__}: {error}"
    source = getattr(sample.picture, "source", None)
    return text.replace(str(source), sample.picture.name) if isinstance(source, (str, Path)) else text


def check_rows(chat: Chat, answerer: Answerer, suite: Suite, rows: Sequence[Row]) -> list[Status]:
    """What each row comes to on this model, told from the first picture that can be read."""
    n = frame = 0
    for sample in suite.samples:
        try:
            picture = sample.picture.load()
            n = answerer.resizer.visual(chat.inputs(picture, sample.question))[0]
            answerer.blinded([picture], [sample.question])
            answerer.resizer.decide([picture], [sample.question])
            if isinstance(picture, Clip):
                frame = answerer.resizer.visual(chat.inputs(fewer(picture, 1), sample.question))[0]
            break
        except (TokenPruneError, OSError):
            continue
    layers = answerer.resizer.parts.num_layers
    statuses = [_status(chat, row, n, frame, layers) for row in rows]
    if n:
        for place, row in enumerate(rows):
            if row.label == RESIZE and row.keep is not None:
                statuses[place] = _resize_status(answerer, row.keep, sample)
    return statuses


def _resize_status(answerer: Answerer, keep: float | int, sample: Sample) -> Status:
    """A processor has a smallest picture too."""
    try:
        with answerer.resizer.inputs([sample.picture.load()], [sample.question], keep):
            return Status()
    except UnsupportedModelError as error:
        return Status("floor", str(error))


def _status(chat: Chat, row: Row, n: int, frame: int, layers: int) -> Status:
    if row.label == FRAMES and row.keep is not None and count(row.keep, n) < frame:
        return Status("floor", f"one frame is {frame} of {n} tokens", frame / n)
    if not row.methods:
        return Status()
    try:
        reducers = row.reducers()
        patch_model(chat.model, reducers, chat.processor).remove()
        for reducer in reducers:
            try:
                n = _after(reducer, n, layers)
            except BudgetError as error:
                return Status("floor", str(error), reducer.floor(n, layers) / max(n, 1))
    except BudgetError as error:
        return Status("floor", str(error))
    except TokenPruneError as error:
        return Status("unavailable", str(error))
    return Status()


def _after(reducer: Reducer, n: int, layers: int) -> int:
    """Tokens a later method of the chain gets."""
    plan = reducer.schedule(n, layers) if n else None
    return plan[max(plan)] if plan else n


def run_facts(chat: Chat, suite: Suite, batch: int) -> dict[str, Any]:
    """Everything that can change an answer: two runs with the same facts may share a journal."""
    found = versions()
    return {
        "model": {
            "name": chat.name,
            "version": chat.version,
            "class": type(chat.model).__name__,
            "parameters": sum(p.numel() for p in chat.model.parameters()),
            "weights": weights_hash(chat.model),
            "dtype": str(chat.model.dtype).removeprefix("torch."),
            "attention": getattr(chat.model.config, "_attn_implementation", None),
            "device": torch.device(chat.device).type,
            "processor": _processor_hash(chat.processor),
        },
        "suite": suite.hash(),
        "max_new_tokens": suite.max_new_tokens,
        "batch": batch,
        "versions": {k: found[k] for k in ("tokenprune", "torch", "transformers")},
    }


def weights_hash(model: torch.nn.Module) -> str:
    """Sixteen hex digits of names, shapes and a few values of every weight: cheap, and different for another one."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().flatten()
        step = max(1, flat.numel() // 16)
        digest.update(f"{name}{tuple(value.shape)}{flat[::step][:17].float().tolist()}".encode())
    return digest.hexdigest()[:16]


def _processor_hash(processor: Any) -> str:
    template = str(getattr(processor, "chat_template", ""))
    maker = getattr(processor, "image_processor", None)
    facts: dict[str, Any] = maker.to_dict() if maker is not None and hasattr(maker, "to_dict") else {}
    facts = {k: v for k, v in facts.items() if "path" not in k}
    return hashlib.sha256((template + json.dumps(facts, sort_keys=True, default=str)).encode()).hexdigest()[
        :16
    ]


def _sample_record(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "group": sample.group,
        "kind": sample.kind,
        "picture": sample.picture.name,
        "question": sample.question,
        "answers": list(sample.answers),
        **({"facts": dict(sample.facts)} if sample.facts else {}),
    }


def _row_record(row: Row, status: Status) -> dict[str, Any]:
    chain = [{"name": name, **json.loads(hyper)} for name, hyper in row.methods]
    return {
        "label": row.label, "key": row.key, "keep": row.keep, "seed": row.seed, "methods": chain,
        "state": status.state, "reason": status.reason, "floor": status.floor,
        "baseline": row.label in (*PLAIN, *BASELINES),
    }  # fmt: skip


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
