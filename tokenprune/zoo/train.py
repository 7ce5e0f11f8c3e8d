"""The recipes of the embedded models, as a command.

    python -m tokenprune.zoo.train tiny-qwen --out DIR                 # everything, two processes
    python -m tokenprune.zoo.train tiny-qwen --out DIR --only cells    # one phase
    python -m tokenprune.zoo.train tiny-qwen --out DIR --only export   # write and measure the checkpoint

`crater-vit`, the tower of the crater suite, is trained by the same command in one process.

Phases (`recipes.py`) are timed, not counted, because what is scarce is a processor's time; `--scale 2` doubles every
one. Each leaves `DIR/<phase>.pt` and resumes from it; all write to `DIR/log.jsonl`. Nothing is pruned in training.

The shipped weights came out of these phases in this order, on shared processor cores without a GPU; the log beside
each model also holds what was begun and dropped. Two things differ in a fresh run of `tiny-llava`: the tower then
learns relations from its first phase on (they were added for `tower10`), and its first phase spends all its time in
windows (a third went to whole pictures). `tiny-qwen` also runs on a CUDA device, where processes of their own draw.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .recipes import RECIPES, TRAINERS, Phase, Row, assembler, saver

log = logging.getLogger(__name__)


def _trainer(kind: str) -> Callable[..., None]:
    module, function = TRAINERS[kind]
    return getattr(importlib.import_module(f".training.{module}", __package__), function)


def run_phase(phase: Phase, out: Path, scale: float = 1.0, **changes: Any) -> None:
    """One phase in this process; `changes` override its options."""
    options = {**phase.options, **changes}
    options["minutes"] = options["minutes"] * scale
    train = _trainer(phase.run)
    unknown = set(options) - set(inspect.signature(train).parameters)
    if unknown:
        raise TypeError(f"phase {phase.name!r} has no option {', '.join(sorted(unknown))}")
    train(out, name=phase.name, **options)


def measure(checkpoint: Path, row: Row) -> dict[str, float]:
    """Exact match, by kind, of one row of the card."""
    from . import evaluate, load

    model, processor = load(str(checkpoint))
    samples = evaluate.SUITES[row.suite].suite(row.split, row.questions)
    scores = evaluate.score(samples, evaluate.answers(model, processor, samples, row.keep))
    log.info("%s %s, %.1f %% of tokens: %.1f %%", row.suite, row.split, 100 * row.keep, 100 * scores["all"])
    return {kind: round(value, 4) for kind, value in scores.items()}


def write_card(name: str, checkpoint: Path, exact: dict[str, dict[str, float]]) -> None:
    """`tokenprune.json`: which checkpoint this is, and what it scored on which suites."""
    from . import evaluate, load

    recipe = RECIPES[name]
    several = len({row.suite for row in recipe.rows.values()}) > 1
    suites, guesses = {}, {}
    for title, row in recipe.rows.items():
        module = evaluate.SUITES[row.suite]
        samples = module.suite(row.split, row.questions)
        suites[title] = {"suite": row.suite} if several else {}
        suites[title] |= {"split": row.split, "questions": row.questions, "seed": 0}
        suites[title]["hash"] = module.suite_hash(samples)
        if row.split == "test" and row.keep == 1.0:
            guess = {kind: round(value, 4) for kind, value in module.majority(samples).items()}
            guesses[f"{row.suite}_majority" if several else "majority"] = guess
    model, _ = load(str(checkpoint))
    card = {
        "name": name,
        "version": recipe.version,
        "date": datetime.date.today().isoformat(),
        "recipe": f"python -m tokenprune.zoo.train {name}",
        **({"rung": recipe.rung} if recipe.rung else {}),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "suites": suites,
        "exact": {**exact, **guesses},
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


def export(name: str, out: Path, checkpoint: Path) -> None:
    """Write the model folder, with its log and a card of what it measures."""
    import torch

    recipe = RECIPES[name]
    if recipe.export:
        module = importlib.import_module(f".training.{recipe.export}", __package__)
        module.export(name, recipe, out, checkpoint)
        return
    model = assembler(name)(out / f"{recipe.phases[-1].name}.pt")
    saver(name)(model, checkpoint, torch.float16)
    thin_log(out / "log.jsonl", checkpoint / "training_log.jsonl", recipe.thin)
    write_card(name, checkpoint, {title: measure(checkpoint, row) for title, row in recipe.rows.items()})


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
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints, log and the final model"
    )
    parser.add_argument("--only", metavar="PHASE", help="one phase of the recipe, or `export`")
    parser.add_argument("--scale", type=float, default=1.0, help="times every phase's minutes")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--port", type=int, default=29531, help="local port the processes meet at")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[arguments.model].phases
    folder = arguments.out / arguments.model.replace("-", "_")
    if arguments.only == "export":
        export(arguments.model, arguments.out, folder)
        return
    if arguments.only:
        import torch

        phases = {phase.name: phase for phase in recipe}
        if arguments.only not in phases:
            parser.error(f"no phase {arguments.only!r}; there are: {', '.join(phases)}, export")
        torch.set_num_threads(1)
        run_phase(phases[arguments.only], arguments.out, arguments.scale)
        return
    for stage in sorted({phase.stage for phase in recipe}):
        phases = [phase for phase in recipe if phase.stage == stage]
        if arguments.processes > 1:
            _spawn(arguments, phases)
        else:
            for phase in phases:
                _spawn(arguments, [phase])
    export(arguments.model, arguments.out, folder)


if __name__ == "__main__":
    main()
