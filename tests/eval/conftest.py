"""A tiny random model with a real processor, and a suite of twelve questions about five pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.vlm_folder import save_vlm
from tokenprune.chat import load_chat

QUESTIONS = ("what colour is the circle ?", "is the circle red ?", "what is the circle ?")


@pytest.fixture(scope="session")
def vlm(tmp_path_factory) -> Path:
    return save_vlm(tmp_path_factory.mktemp("vlm") / "toy")


@pytest.fixture(scope="session")
def chat(vlm):
    return load_chat(str(vlm))


@pytest.fixture
def listing(tmp_path) -> Path:
    """`questions.jsonl` with twelve lines beside `0.png` to `4.png`; made anew, so that a test may spoil it."""
    return write_suite(tmp_path / "suite")


def write_suite(folder: Path, n: int = 12) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    lines = [
        {
            "id": f"q{i:02d}",
            "image": f"{i % 5}.png",
            "question": QUESTIONS[i % 3],
            "answer": "red",
            "kind": "ab"[i % 2],
        }
        for i in range(n)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "questions.jsonl"
