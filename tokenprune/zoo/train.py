"""The recipe of the embedded models, as a command.

    python -m tokenprune.zoo.train tiny-llava --out DIR                 # everything, two processes
    python -m tokenprune.zoo.train tiny-llava --out DIR --only tower    # one phase
    python -m tokenprune.zoo.train tiny-llava --out DIR --only export   # write and measure the checkpoint

Phases are timed, not counted, because what is scarce is a processor's time; `--scale 2` doubles every one.
Each leaves `DIR/<phase>.pt` and resumes from it; all write to `DIR/log.jsonl`. Nothing is pruned in training.

The shipped weights came out of these phases in this order, on two shared processor cores without a GPU; its log,
`tiny_llava/training_log.jsonl`, also holds what was begun and dropped. Two things differ in a fresh run: the tower
then learns relations from its first phase on (they were added for `tower10`), and its first phase spends all its
time in windows (a third went to whole pictures).
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = "1.0"


@dataclass(frozen=True)
class Phase:
    """`stage`: phases of one stage run side by side. `team`: all processes share this one."""

    name: str
    stage: int
    run: str
    options: dict[str, Any] = field(default_factory=dict)
    team: bool = False


WINDOW = {"window": 7}
WHOLE = {"window": 14}
RECIPE: tuple[Phase, ...] = (
    # Windows of 7 x 7 patches first: as crowded as whole pictures and five times as cheap.
    Phase("tower7", 0, "tower", {"minutes": 46, "rate": 2e-3, "batch": 64, **WINDOW}),
    Phase("language4", 0, "language", {"minutes": 18, "layers": 4, "rate": 2e-3, "batch": 32, **WINDOW}),
    Phase("tower14", 1, "tower", {"minutes": 6, "rate": 5e-4, "batch": 16, "start": "tower7", **WHOLE}),
    Phase("language8", 1, "language", {"minutes": 16, "layers": 8, "rate": 2e-3, "batch": 32,
                                       "start": "language4", **WINDOW}),
    # Whole pictures; the relations, which only the tower can learn quickly, settle here.
    Phase("language14", 2, "language", {"minutes": 8, "layers": 8, "rate": 1.5e-3, "batch": 16,
                                        "start": "language8", "add_smooth": True, **WHOLE}, team=True),
    Phase("tower10", 3, "tower", {"minutes": 13, "rate": 1.2e-3, "batch": 32, "start": "tower14", "window": 10}),
    Phase("language14b", 3, "language", {"minutes": 13, "layers": 8, "rate": 1.2e-3, "batch": 16,
                                         "start": "language14", **WHOLE}),
    Phase("pictures8", 4, "pictures", {"minutes": 10, "align_minutes": 2, "layers": 8, "rate": 1e-3,
                                       "tower_rate": 5e-4, "tower": "tower10", "language": "language14b",
                                       "batch": 16, **WHOLE}, team=True),
    Phase("pictures16", 5, "pictures", {"minutes": 17, "layers": 16, "rate": 1e-3, "tower_rate": 5e-4,
                                        "start": "pictures8", "batch": 16, **WHOLE}, team=True),
    Phase("pictures16b", 6, "pictures", {"minutes": 11, "layers": 16, "rate": 7e-4, "tower_rate": 4e-4,
                                         "start": "pictures16", "batch": 16, **WHOLE}, team=True),
)  # fmt: skip

#: What the card reports: row -> (split, share of the visual tokens left, at random, questions).
ROWS = {
    "test": ("test", 1.0, 2250),
    "held_out": ("held_out", 1.0, 900),
    "blind": ("test", 0.0, 900),
    "random_0.111": ("test", 0.111, 900),
}


def _trainer(kind: str) -> Callable[..., None]:
    from .training import language, pictures, tower

    return {"tower": tower.train, "language": language.train, "pictures": pictures.train}[kind]


def run_phase(phase: Phase, out: Path, scale: float = 1.0, **changes: Any) -> None:
    """One phase in this process; `changes` override its options."""
    options = {**phase.options, **changes}
    options["minutes"] = options["minutes"] * scale
    train = _trainer(phase.run)
    unknown = set(options) - set(inspect.signature(train).parameters)
    if unknown:
        raise TypeError(f"phase {phase.name!r} has no option {', '.join(sorted(unknown))}")
    train(out, name=phase.name, **options)


def measure(checkpoint: Path, row: str) -> dict[str, float]:
    """Exact match, by kind, of one of `ROWS`."""
    from . import evaluate, load
    from .scenes import suite

    split, keep, questions = ROWS[row]
    model, processor = load(str(checkpoint))
    samples = suite(split, questions)
    scores = evaluate.score(samples, evaluate.answers(model, processor, samples, keep))
    log.info("%s: %.1f %%", row, 100 * scores["all"])
    return {kind: round(value, 4) for kind, value in scores.items()}


def write_card(checkpoint: Path, exact: dict[str, dict[str, float]]) -> None:
    """`tokenprune.json`: which checkpoint this is, and what it scored on which suites."""
    from . import load
    from .scenes import majority, suite, suite_hash

    suites = {}
    for row, (split, _, questions) in ROWS.items():
        suites[row] = {
            "split": split,
            "questions": questions,
            "seed": 0,
            "hash": suite_hash(suite(split, questions)),
        }
    guess = majority(suite("test", ROWS["test"][2]))
    exact = {**exact, "majority": {kind: round(value, 4) for kind, value in guess.items()}}
    model, _ = load(str(checkpoint))
    card = {
        "name": "tiny-llava",
        "version": VERSION,
        "date": datetime.date.today().isoformat(),
        "recipe": "python -m tokenprune.zoo.train tiny-llava",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "suites": suites,
        "exact": exact,
    }
    (checkpoint / "tokenprune.json").write_text(json.dumps(card, indent=2) + "\n")


def thin_log(log_file: Path, target: Path, every: int = 2) -> None:
    """The training log without most of its lines; each phase keeps its first and last."""
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    kept = [
        line
        for i, line in enumerate(lines)
        if i % every == 0 or i + 1 == len(lines) or lines[i + 1]["phase"] != line["phase"]
    ]
    target.write_text("".join(json.dumps(line) + "\n" for line in kept))


def export(out: Path, checkpoint: Path, phase: str = RECIPE[-1].name) -> None:
    """Write the model folder, with its log and a card of what it measures."""
    import torch

    from .build import save_folder
    from .training.pictures import assemble_from

    save_folder(assemble_from(out / f"{phase}.pt"), checkpoint, torch.float16)
    thin_log(out / "log.jsonl", checkpoint / "training_log.jsonl")
    write_card(checkpoint, {row: measure(checkpoint, row) for row in ROWS})


def _spawn(arguments: argparse.Namespace, phases: list[Phase]) -> None:
    """Run the phases of a stage side by side, each in processes of its own with one thread."""
    base = [sys.executable, "-m", "tokenprune.zoo.train", arguments.model, "--out", str(arguments.out)]
    base += ["--scale", str(arguments.scale)]
    running = []
    for phase in phases:
        size = arguments.processes if phase.team else 1
        for rank in range(size):
            env = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(size)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(arguments.port)}
            running.append(subprocess.Popen([*base, "--only", phase.name], env=env))
    failed = [process.args for process in running if process.wait()]
    if failed:
        raise SystemExit(f"a phase failed: {failed[0]}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train an embedded model from nothing.")
    parser.add_argument("model", choices=["tiny-llava"])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints, log and the final model"
    )
    parser.add_argument("--only", choices=[*(phase.name for phase in RECIPE), "export"])
    parser.add_argument("--scale", type=float, default=1.0, help="times every phase's minutes")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--port", type=int, default=29531, help="local port the processes meet at")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.only == "export":
        export(arguments.out, arguments.out / "tiny_llava")
        return
    if arguments.only:
        import torch

        torch.set_num_threads(1)
        run_phase(
            next(phase for phase in RECIPE if phase.name == arguments.only), arguments.out, arguments.scale
        )
        return
    for stage in sorted({phase.stage for phase in RECIPE}):
        phases = [phase for phase in RECIPE if phase.stage == stage]
        if arguments.processes > 1:
            _spawn(arguments, phases)
        else:
            for phase in phases:
                _spawn(arguments, [phase])
    export(arguments.out, arguments.out / "tiny_llava")


if __name__ == "__main__":
    main()
