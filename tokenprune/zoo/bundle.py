"""Draws the pictures of `examples/` and writes their questions: what `tokenprune compare` shows by default.

    python -m tokenprune.zoo.bundle

The scenes are of the test side, so no model here was trained on them; each is full and has a word in it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from .drawing import render
from .layout import Scene, draw_scene
from .questions import KINDS, Question, ask
from .splits import is_test

PICTURES = 5
ASKED = 3
FOLDER = Path(__file__).parent / "examples"


def _rich_scene(rng: random.Random) -> tuple[Scene, dict[str, list[Question]]]:
    """A test scene of at least six things and a word that every kind of question can be asked about."""
    while True:
        scene = draw_scene(rng, "test")
        if len(scene.things) >= 6 and scene.word and is_test(scene):
            pools = {kind: [q for q in ask(scene, kind, rng) if not q.held_out] for kind in KINDS}
            pools["count"] = [q for q in pools["count"] if int(q.answer) >= 2]
            pools["exist"] = [q for q in pools["exist"] if q.answer == "yes"]
            if all(pools.values()):
                return scene, pools


def write(folder: Path = FOLDER, seed: int = 7) -> None:
    """Write `scene-1.png`, ... and `questions.json`: a list of {image, question, answer, kind, boxes}."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    entries = []
    kinds = [KINDS[i % len(KINDS)] for i in range(0, 2 * PICTURES * ASKED, 2)]  # every kind, spread out
    for number in range(1, PICTURES + 1):
        scene, pools = _rich_scene(rng)
        name = f"scene-{number}.png"
        render(scene).save(folder / name, optimize=True)
        for kind in (kinds.pop(0) for _ in range(ASKED)):
            question = rng.choice(pools[kind])
            entries.append(
                {
                    "image": name,
                    "question": question.text,
                    "answer": question.answer,
                    "kind": kind,
                    "boxes": question.boxes,
                }
            )
    (folder / "questions.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    write()
