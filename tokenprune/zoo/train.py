"""The recipe of the embedded models, as a command.

    python -m tokenprune.zoo.train tiny-llava --out DIR                 # everything, two processes
    python -m tokenprune.zoo.train tiny-llava --out DIR --only tower    # one phase
    python -m tokenprune.zoo.train tiny-llava --out DIR --only export   # write and measure the checkpoint

Phases are timed, not counted, because what is scarce is a processor's time; `--scale 2` doubles every one.
Each leaves `DIR/<phase>.pt` and resumes from it; all write to `DIR/log.jsonl`. Nothing is pruned in training.
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
    Phase("tower", 0, "tower", {"minutes": 46, "rate": 2e-3, "batch": 64, **WINDOW}),
    Phase("tower14", 1, "tower", {"minutes": 6, "rate": 5e-4, "batch": 16, "start": "tower", **WHOLE}),
    Phase("language4", 0, "language", {"minutes": 18, "layers": 4, "rate": 2e-3, "batch": 32, **WINDOW}),
    Phase("language8", 1, "language", {"minutes": 16, "layers": 8, "rate": 2e-3, "batch": 32, "start": "language4", **WINDOW}),
    Phase("language14", 2, "language", {"minutes": 11, "layers": 8, "rate": 1.5e-3, "batch": 16, "start": "language8", **WHOLE}, team=True),
    Phase("pictures", 3, "pictures", {"minutes": 24, "layers": 16, "rate": 1e-3, "batch": 16, "tower": "tower14",
                                      "language": "language14", **WHOLE}, team=True),
)  # fmt: skip


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


def export(out: Path, checkpoint: Path, questions: int = 2250, phase: str = "pictures") -> dict[str, Any]:
    """Write the model folder and `tokenprune.json` with what it measures on the test and held-out suites."""
    import torch

    from . import evaluate, load
    from .build import save_folder
    from .scenes import majority, suite, suite_hash
    from .training.pictures import assemble_from

    save_folder(assemble_from(out / f"{phase}.pt"), checkpoint, torch.float16)
    model, processor = load(str(checkpoint))
    exact, suites = {}, {}
    for row, split, keep in (
        ("test", "test", 1.0),
        ("held_out", "held_out", 1.0),
        ("blind", "test", 0.0),
        ("random_0.111", "test", 0.111),
    ):
        samples = suite(split, questions)
        scores = evaluate.score(samples, evaluate.answers(model, processor, samples, keep))
        exact[row] = {kind: round(value, 4) for kind, value in scores.items()}
        suites[split] = {"questions": questions, "seed": 0, "hash": suite_hash(samples)}
        if row == "test":
            exact["majority"] = {kind: round(value, 4) for kind, value in majority(samples).items()}
        log.info("%s: %.1f %%", row, 100 * scores["all"])
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
    return card


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
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and the final model")
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
        run_phase(next(phase for phase in RECIPE if phase.name == arguments.only), arguments.out, arguments.scale)
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
