"""`evaluate`: one model, one suite, every row of a table. Returns data, prints nothing, loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..bench.machine import machine, versions
from ..bench.timer import torch_threads
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
from .facts import run_facts
from .journal import Journal, Records, write_file, write_samples
from .medium import fewer
from .results import FILE as RESULTS
from .results import Results, read_results, score_run
from .rows import BASELINES, FRAMES, PLAIN, RESIZE, SEEDS, Item, Row, plan_rows
from .shard import Batch, Shard, one_at_a_time, plan_batches, stamp
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
    device_map: str | dict[str, Any] | None = None,
    name: str = "",
    published: dict[str, Any] | None = None,
    home: Path | None = None,
    force: bool = False,
    shard: Shard | None = None,
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
        device_map: as `from_pretrained` takes it, instead of `device`: a model over several GPUs.
        published: what a paper gives for some of the rows, to be shown beside them; see `published_table`.
        shard: which process of a run this is, where several share a folder; None: as the launcher says. All of them
            return the whole run's results; `Results.written` says which one has written them.

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
    shard = shard or Shard.from_environment()
    place = shard.device(device)
    chat = model if isinstance(model, Chat) else load_chat(model, device=place, dtype=dtype, device_map=device_map)
    folder = Path(out)
    facts = run_facts(chat, asked, batch)
    before = stamp(folder / RESULTS)
    with torch_threads(threads), Journal(folder, facts, rank=shard.rank, force=force) as journal:
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
            "published": published,
            "rows": [_row_record(row, status) for row, status in zip(rows, statuses)],
        }  # fmt: skip
        write_file(folder / RUN, json.dumps(body, indent=1))
        runner.run(batch, shard)
        with one_at_a_time(folder, shard):
            if shard.world > 1 and stamp(folder / RESULTS) != before:
                return read_results(folder)
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
        self.records = Records(journal.folder)
        self.asked = {(row.key, sample.id) for row in self.rows for sample in suite.samples}
        self.settled = {p for p, r in self.records.found.items() if "error" not in r}
        """Answered, or tried in vain since this run began, by whatever rank."""
        self.done = len(self.asked & self.settled)

    def run(self, size: int, shard: Shard) -> None:
        """Every batch of the plan, in this rank's order."""
        for batch, first in shard.order(plan_batches(self.suite.samples, size), len(self.rows)):
            self._batch(batch, self.rows[first:] + self.rows[:first])

    def _update(self) -> None:
        for record in self.records.update():
            place = record["row"], record["id"]
            self.done += place in self.asked and place not in self.settled and "error" not in record
            self.settled.add(place)

    def _batch(self, batch: Batch, rows: Sequence[Row]) -> None:
        loaded: list[tuple[Sample, Medium]] = []
        broken: dict[str, str] = {}
        with self.answerer.shared.held():
            for row in rows:
                self._update()
                open_ = [s for s in batch if (row.key, s.id) not in self.settled]
                if not open_:
                    continue
                if not loaded and not broken:
                    loaded, broken = _load(batch)
                found: dict[str, Answer | str] = dict(broken)
                if loaded:
                    found.update(self._answers(row, loaded))
                self.journal.append([_record(row, s, found[s.id], self.records.found) for s in open_])
                if self.tick is not None:
                    self._update()
                    self.tick(self.done, len(self.asked), row.key)

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


def _load(batch: Batch) -> tuple[list[tuple[Sample, Medium]], dict[str, str]]:
    """Samples with what they show, and why the others' cannot be read, by id."""
    loaded: list[tuple[Sample, Medium]] = []
    broken: dict[str, str] = {}
    for sample in batch:
        try:
            loaded.append((sample, sample.picture.load()))
        except (TokenPruneError, OSError) as error:
            broken[sample.id] = _message(error, sample)
    return loaded, broken


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
