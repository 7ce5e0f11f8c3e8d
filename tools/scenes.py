"""Accuracy of tiny-llava on its scenes under each method: `python tools/scenes.py` writes results/scenes.json.

All rows answer the same questions with the same batches. `blind` hides every visual token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import transformers

import tokenprune
from tokenprune import patch_model
from tokenprune.zoo import load, path
from tokenprune.zoo.evaluate import answers, score
from tokenprune.zoo.scenes import majority, suite, suite_hash

KEEPS = (0.5, 0.25, 0.111, 0.056)
METHODS = ("random", "uniform", "pool", "flashvlm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=900)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=Path("results/scenes.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    model, processor = load("tiny-llava")
    samples = suite(options.split, options.n, seed=0)
    plain = answers(model, processor, samples)
    rows = [_row("none", 1.0, samples, plain, plain)]
    rows.append(_row("blind", 0.0, samples, answers(model, processor, samples, keep=0.0), plain))
    for method in METHODS:
        for keep in KEEPS:
            for seed in range(3 if method == "random" else 1):
                hyper = {"seed": seed} if method == "random" else {}
                with patch_model(model, method, processor, keep=keep, **hyper):
                    rows.append(
                        _row(method, keep, samples, answers(model, processor, samples), plain, **hyper)
                    )
                print(rows[-1]["method"], keep, f"{rows[-1]['exact']['all']:.3f}", flush=True)
    body = {
        "model": json.loads((path("tiny-llava") / "tokenprune.json").read_text()),
        "suite": {"name": "scenes", "split": options.split, "n": options.n, "hash": suite_hash(samples)},
        "majority": majority(samples),
        "rows": rows,
        "versions": {
            "tokenprune": tokenprune.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(body, indent=1) + "\n")


def _row(method: str, keep: float, samples, found, plain, **hyper) -> dict:
    right = [a == s.answer for a, s in zip(found, samples)]
    return {
        "method": method,
        "keep": keep,
        **hyper,
        "exact": score(samples, found),
        "agrees": sum(a == b for a, b in zip(found, plain)) / len(plain),
        "right": "".join("01"[r] for r in right),  # per question, for paired statistics
    }


if __name__ == "__main__":
    main()
