"""Small datasets of the public benchmarks' own shapes: features, rows, pictures as bytes, clips as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

TEXT, WHOLE = datasets.Value("string"), datasets.Value("int64")
PICTURE = datasets.Image()
TEXTS = datasets.List(TEXT) if hasattr(datasets, "List") else datasets.Sequence(TEXT)
NUMBERS = datasets.List(datasets.Value("float64"))
VOTES = [{"answer": TEXT, "answer_confidence": TEXT, "answer_id": WHOLE}]


def png(shade: int, size: tuple[int, int] = (40, 20), name: str | None = None) -> dict[str, Any]:
    """An encoded picture as a row holds it."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": name}


def votes(*said: str) -> list[dict[str, Any]]:
    return [{"answer": s, "answer_confidence": "yes", "answer_id": i} for i, s in enumerate(said)]


FEATURES: dict[str, dict[str, Any]] = {
    "gqa": {"id": TEXT, "imageId": TEXT, "question": TEXT, "answer": TEXT},
    "vqav2": {"question_id": WHOLE, "question": TEXT, "image": PICTURE, "answers": VOTES},
    "textvqa": {"question_id": WHOLE, "question": TEXT, "image": PICTURE, "answers": TEXTS, "ocr_tokens": TEXTS},
    "pope": {"question_id": TEXT, "question": TEXT, "answer": TEXT, "category": TEXT, "image": PICTURE},
    "mme": {"question_id": TEXT, "question": TEXT, "answer": TEXT, "category": TEXT, "image": PICTURE},
    "mmbench_en": {
        "index": WHOLE, "question": TEXT, "hint": TEXT, "A": TEXT, "B": TEXT, "C": TEXT, "D": TEXT, "E": TEXT,
        "answer": TEXT, "category": TEXT, "L2-category": TEXT, "source": TEXT, "split": TEXT, "image": PICTURE,
    },
    "scienceqa": {"image": PICTURE, "hint": TEXT, "question": TEXT, "choices": TEXTS, "answer": datasets.Value("int8")},
    "ai2d": {"question": TEXT, "options": TEXTS, "answer": TEXT, "image": PICTURE},
    "chartqa": {"type": TEXT, "question": TEXT, "answer": TEXT, "image": PICTURE},
    "docvqa": {"questionId": TEXT, "question": TEXT, "answers": TEXTS, "image": PICTURE},
    "ocrbench": {"dataset": TEXT, "question": TEXT, "question_type": TEXT, "answer": TEXTS, "image": PICTURE},
    "refcoco": {"question_id": TEXT, "image": PICTURE, "answer": TEXTS, "bbox": NUMBERS},
    "videomme": {
        "videoID": TEXT, "duration": TEXT, "domain": TEXT, "sub_category": TEXT, "task_type": TEXT,
        "question_id": TEXT, "question": TEXT, "options": TEXTS, "answer": TEXT,
    },
    "mvbench": {"video": TEXT, "question": TEXT, "candidates": TEXTS, "answer": TEXT},
    "egoschema": {"video_idx": TEXT, "question": TEXT, "option": TEXTS, "answer": TEXT},
    "longvideobench": {
        "id": TEXT, "video_path": TEXT, "duration": datasets.Value("float64"), "duration_group": WHOLE,
        "question": TEXT, "option0": TEXT, "option1": TEXT, "option2": TEXT, "option3": TEXT, "option4": TEXT,
        "correct_choice": WHOLE, "question_category": TEXT, "subtitle_path": TEXT,
        "starting_timestamp_for_subtitles": datasets.Value("float64"),
    },
}  # fmt: skip
FEATURES["mmbench_cn"] = FEATURES["mmbench_en"]
_BENCH = {
    "category": "object",
    "L2-category": "coarse",
    "source": "s",
    "split": "dev",
    "D": "nan",
    "E": "nan",
}
_LONG = {
    "duration": 9.5,
    "question_category": "S2E",
    "subtitle_path": "a.json",
    "starting_timestamp_for_subtitles": 0.0,
}
_MME = "Is there a dog in this image? Please answer yes or no."
ROWS: dict[str, list[dict[str, Any]]] = {
    "gqa": [
        {"id": "7", "imageId": "n2", "question": "Is it red?", "answer": "no"},
        {"id": "8", "imageId": "n1", "question": "What is it?", "answer": "t-shirt"},
        {"id": "9", "imageId": "n2", "question": "Where is it?", "answer": "left"},
    ],
    "vqav2": [
        {"question_id": 42000, "question": "What?", "image": png(1), "answers": votes(*["cat"] * 7, *["dog"] * 3)},
        {"question_id": 42001, "question": "Who?", "image": png(1), "answers": votes(*["man"] * 10)},
        {"question_id": 43000, "question": "Why?", "image": png(2), "answers": votes(*["wet"] * 10)},
    ],
    "textvqa": [
        {"question_id": 5, "question": "what is the NASA sign?", "image": png(3), "answers": ["stop"] * 10,
         "ocr_tokens": ["STOP", "4-way"]},
        {"question_id": 6, "question": "which brand?", "image": png(3), "answers": ["x"] * 10, "ocr_tokens": []},
    ],
    "pope": [
        {"question_id": str(n), "question": f"Is there a {n} in the image?", "answer": "yes" if n % 2 else "no",
         "category": kind, "image": png(n // 3)}
        for kind in ("adversarial", "popular", "random") for n in range(6)
    ],
    "mme": [
        {"question_id": f"{name}.jpg", "question": _MME, "answer": answer, "category": category, "image": png(shade)}
        for shade, (name, category) in enumerate(
            [("a", "existence"), ("b", "existence"), ("c", "count"), ("d", "commonsense_reasoning")]
        )
        for answer in ("Yes", "No")
    ],
    "mmbench_en": [
        {"index": index, "question": "Which?", "hint": hint, "A": a, "B": b, "C": c, "answer": answer, "image": png(4),
         **_BENCH}
        for index, hint, a, b, c, answer in [
            (3, "nan", "cat", "dog", "cow", "B"), (1_000_003, "nan", "dog", "cow", "cat", "A"),
            (2_000_003, "nan", "cow", "cat", "dog", "C"), (4, "Look.", "up", "down", "nan", "A"),
            (1_000_004, "Look.", "down", "up", "nan", "B"),
        ]
    ],
    "scienceqa": [
        {"image": png(5), "hint": "A hint.", "question": "Which?", "choices": ["iron", "wood"], "answer": 1},
        {"image": png(6), "hint": "", "question": "Why?", "choices": ["a", "b", "c"], "answer": 0},
    ],
    "ai2d": [
        {"question": "What eats it?", "options": ["fox", "owl", "cat", "hen"], "answer": "2", "image": png(7)},
        {"question": "What grows?", "options": ["a", "b", "c", "d"], "answer": "0", "image": png(7)},
    ],
    "chartqa": [
        {"type": "human_test", "question": "How many?", "answer": "14", "image": png(8)},
        {"type": "augmented_test", "question": "Which?", "answer": "Blue", "image": png(9)},
    ],
    "docvqa": [
        {"questionId": "11", "question": "Who signed?", "answers": ["Paris", "paris"], "image": png(10)},
        {"questionId": "12", "question": "When?", "answers": ["12 July 2001"], "image": png(10)},
    ],
    "ocrbench": [
        {"dataset": "IIIT5K", "question": "what is written?", "question_type": "Regular Text Recognition",
         "answer": ["STOP"], "image": png(11)},
        {"dataset": "HME100k", "question": "write the formula", "question_type": "Handwritten Mathematical Expression",
         "answer": ["x ^ { 2 } + 1"], "image": png(12)},
    ],
    "refcoco": [
        {"question_id": "r1", "image": png(13), "answer": ["the dog", "left dog"], "bbox": [4.0, 2.0, 16.0, 8.0]},
        {"question_id": "r2", "image": png(13), "answer": ["a cat"], "bbox": [0.0, 0.0, 40.0, 20.0]},
    ],
    "videomme": [
        {"videoID": "v1", "duration": kind, "domain": "d", "sub_category": "s", "task_type": "t",
         "question_id": f"00{n}",
         "question": "What?", "options": ["A. a cat.", "B. a dog.", "C. a cow.", "D. a hen."], "answer": "BD"[n]}
        for n, kind in enumerate(("short", "long"))
    ],
    "mvbench": [
        {"video": "c1.mp4", "question": "What?", "candidates": ["run", "sit", "eat"], "answer": "sit"},
        {"video": "c2.mp4", "question": "Who?", "candidates": ["a", "b"], "answer": "a"},
    ],
    "egoschema": [
        {"video_idx": "e1", "question": "What does C do?", "answer": "1",
         "option": ["A. C cuts wood", "B. C eats", "C. C runs", "D. C sings", "E. C sleeps"]},
    ],
    "longvideobench": [
        {"id": "l1", "video_path": "l1.mp4", "duration_group": 15, "question": "When?", "option0": "first",
         "option1": "then", "option2": "last", "option3": "N/A", "option4": "N/A", "correct_choice": 1, **_LONG},
    ],
}  # fmt: skip
ROWS["mmbench_cn"] = ROWS["mmbench_en"]
CLIPS = {"videomme": ["data/v1.mp4"], "mvbench": ["c1.mp4", "c2.mp4"], "egoschema": ["videos/e1.mp4"],
         "longvideobench": ["videos/l1.mp4"]}  # fmt: skip


def save(folder: Path, name: str, split: str, rows: list[dict[str, Any]] | None = None) -> Path:
    """A parquet of a benchmark's rows where a clone of its dataset has it."""
    made = datasets.Dataset.from_list(ROWS[name] if rows is None else rows, datasets.Features(FEATURES[name]))
    folder.mkdir(parents=True, exist_ok=True)
    made.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def write_clip(path: Path) -> None:
    """Eight frames that anything can read: a GIF by the name that the rows give."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (32, 24), (20 * n, 0, 0)) for n in range(8)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=100, loop=0)
