"""How often an embedded model answers a suite exactly right, kind by kind.

    python -m tokenprune.zoo.evaluate tiny-llava
    python -m tokenprune.zoo.evaluate tiny-llava --blind
    python -m tokenprune.zoo.evaluate tiny-llava --random 0.111

Nothing here uses the reducers: `--blind` and `--random` hide visual tokens behind the attention mask while
every position stays as it was. They are the two rows that say whether a suite can tell methods apart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from .questions import KINDS
from .scenes import SPLITS, Sample, majority, suite, suite_hash


def prompt_of(processor, question: str) -> str:
    """The prompt a chat with one picture and one question renders to."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def _hide(inputs, image_token: int, keep: float, generator: torch.Generator) -> None:
    """Mask all but a random share of each row's visual tokens, in place."""
    visual = inputs["input_ids"] == image_token
    for row, places in enumerate(visual):
        at = places.nonzero().flatten()
        count = math.floor(keep * len(at) + 0.5)
        dropped = at[torch.randperm(len(at), generator=generator)[count:]]
        inputs["attention_mask"][row, dropped] = 0


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


@torch.no_grad()
def answers(
    model, processor, samples: Sequence[Sample], keep: float = 1.0, batch: int = 32, seed: int = 0
) -> list[str]:
    """The model's answer to each sample, greedy. `keep` < 1 leaves it a random share of the visual tokens."""
    generator = torch.Generator().manual_seed(seed)
    found: list[str] = []
    for part in _batches(samples, batch):
        inputs = processor(
            images=[sample.image for sample in part],
            text=[prompt_of(processor, sample.question) for sample in part],
            padding=True,
            return_tensors="pt",
        )
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        # Positions come from the full prompt, so that hiding a token moves no other.
        places = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if keep < 1:
            _hide(inputs, model.config.image_token_id, keep, generator)
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        output = model.generate(**inputs, position_ids=places.to(model.device))
        new = output[:, inputs["input_ids"].shape[1] :]
        found += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return found


def score(samples: Sequence[Sample], found: Sequence[str]) -> dict[str, float]:
    """Exact match of each kind and, under "all", the mean over questions."""
    right: dict[str, list[bool]] = defaultdict(list)
    for sample, answer in zip(samples, found, strict=True):
        right[sample.kind].append(answer == sample.answer)
    scores = {kind: sum(right[kind]) / len(right[kind]) for kind in KINDS if right[kind]}
    return {"all": sum(map(sum, right.values())) / max(1, len(samples)), **scores}


def main(argv: Sequence[str] | None = None) -> None:
    from . import load

    parser = argparse.ArgumentParser(description="Exact match of an embedded model on a procedural suite.")
    parser.add_argument("model", help="name of an embedded model, or a folder")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("-n", type=int, default=2250, help="number of questions")
    parser.add_argument("--seed", type=int, default=0, help="of the suite")
    hide = parser.add_mutually_exclusive_group()
    hide.add_argument("--blind", action="store_true", help="hide every visual token")
    hide.add_argument(
        "--random", type=float, metavar="KEEP", help="keep this random share of the visual tokens"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)

    model, processor = load(arguments.model)
    samples = suite(arguments.split, arguments.n, arguments.seed)
    keep = 0.0 if arguments.blind else 1.0 if arguments.random is None else arguments.random
    scores = score(samples, answers(model, processor, samples, keep, arguments.batch))
    guess = majority(samples)
    table = Table(
        title=f"{arguments.model}, {arguments.split} {suite_hash(samples)}, {keep:.1%} of visual tokens"
    )
    for column in ("kind", "exact", "majority"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, value in scores.items():
        table.add_row(kind, f"{value:.1%}", f"{guess[kind]:.1%}" if kind in guess else "")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"keep": keep, "split": arguments.split, "exact": scores}, indent=2)
        )


if __name__ == "__main__":
    main()
