"""How often an embedded model answers a suite exactly right, kind by kind.

    python -m tokenprune.zoo.evaluate tiny-llava
    python -m tokenprune.zoo.evaluate tiny-qwen --suite documents
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
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from . import clips, documents, scenes
from .splits import SPLITS

SUITES = {"scenes": scenes, "documents": documents, "clips": clips}


def prompt_of(processor, question: str, medium: str = "image") -> str:
    """The prompt a chat with one picture (or one "video") and one question renders to."""
    content = [{"type": medium}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def inputs_of(processor, samples: Sequence[Any]) -> dict[str, torch.Tensor]:
    """What a model takes for a batch of samples of one suite: left-padded prompts with their pictures or clips."""
    if not hasattr(samples[0], "frames"):
        texts = [prompt_of(processor, sample.question) for sample in samples]
        media: dict[str, Any] = {"images": [sample.image for sample in samples]}
    else:
        texts = [prompt_of(processor, sample.question, "video") for sample in samples]
        shot = {"total_num_frames": len(samples[0].timestamps), "fps": samples[0].fps}
        shot["frames_indices"] = list(range(len(samples[0].timestamps)))
        videos = [np.stack([np.asarray(frame) for frame in sample.frames]) for sample in samples]
        media = {"videos": videos, "video_metadata": [shot] * len(videos), "do_sample_frames": False}
    return dict(processor(text=texts, padding=True, return_tensors="pt", **media))


def _places(model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Position ids of a prompt while all of it is to be seen."""
    flat = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    if "mm_token_type_ids" not in inputs or not hasattr(model.model, "get_rope_index"):
        return flat
    grids = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    extra = {name: inputs[name] for name in grids if name in inputs}
    names = ("input_ids", "mm_token_type_ids", "attention_mask")
    spread, _ = model.model.get_rope_index(**{name: inputs[name] for name in names}, **extra)
    return torch.cat((flat[None], spread))


def _hide(inputs, config, keep: float, generator: torch.Generator) -> None:
    """Mask all but a random share of each row's visual tokens, in place."""
    tokens = [config.image_token_id, getattr(config, "video_token_id", None) or config.image_token_id]
    visual = torch.isin(inputs["input_ids"], torch.tensor(tokens))
    for row, places in enumerate(visual):
        at = places.nonzero().flatten()
        count = math.floor(keep * len(at) + 0.5)
        dropped = at[torch.randperm(len(at), generator=generator)[count:]]
        inputs["attention_mask"][row, dropped] = 0


def _batches(samples: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


@torch.no_grad()
def answers(
    model, processor, samples: Sequence[Any], keep: float = 1.0, batch: int = 32, seed: int = 0
) -> list[str]:
    """The model's answer to each sample, greedy. `keep` < 1 leaves it a random share of the visual tokens."""
    generator = torch.Generator().manual_seed(seed)
    found: list[str] = []
    for part in _batches(samples, batch):
        inputs = inputs_of(processor, part)
        for name in ("pixel_values", "pixel_values_videos"):
            if name in inputs:
                inputs[name] = inputs[name].to(model.dtype)
        options = {}
        if keep < 1:
            # Positions come from the full prompt, so that hiding a token moves no other.
            options["position_ids"] = _places(model, inputs).to(model.device)
            _hide(inputs, model.config, keep, generator)
        inputs = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        output = model.generate(**inputs, **options)
        new = output[:, inputs["input_ids"].shape[1] :]
        found += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return found


def score(samples: Sequence[Any], found: Sequence[str]) -> dict[str, float]:
    """Exact match of each kind and, under "all", the mean over questions; for pages the share of wrong characters
    too, under "page_cer"."""
    right: dict[str, list[bool]] = defaultdict(list)
    for sample, answer in zip(samples, found, strict=True):
        right[sample.kind].append(answer == sample.answer)
    kinds = [kind for module in SUITES.values() for kind in module.KINDS]
    scores = {kind: sum(right[kind]) / len(right[kind]) for kind in kinds if right[kind]}
    scores = {"all": sum(map(sum, right.values())) / max(1, len(samples)), **scores}
    pages = [(sample, answer) for sample, answer in zip(samples, found) if sample.kind == "page"]
    if pages:
        scores["page_cer"] = documents.character_error_rate(*zip(*pages))
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    from . import load

    parser = argparse.ArgumentParser(description="Exact match of an embedded model on a procedural suite.")
    parser.add_argument("model", help="name of an embedded model, or a folder")
    parser.add_argument("--suite", choices=list(SUITES), default="scenes")
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
    module = SUITES[arguments.suite]
    samples = module.suite(arguments.split, arguments.n, arguments.seed)
    keep = 0.0 if arguments.blind else 1.0 if arguments.random is None else arguments.random
    scores = score(samples, answers(model, processor, samples, keep, arguments.batch))
    guess = module.majority(samples)
    what = f"{arguments.suite} {arguments.split} {module.suite_hash(samples)}"
    table = Table(title=f"{arguments.model}, {what}, {keep:.1%} of visual tokens")
    for column in ("kind", "exact", "majority"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, value in scores.items():
        table.add_row(kind, f"{value:.1%}", f"{guess[kind]:.1%}" if kind in guess else "")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {"keep": keep, "suite": arguments.suite, "split": arguments.split, "exact": scores}, indent=2
            )
        )


if __name__ == "__main__":
    main()
