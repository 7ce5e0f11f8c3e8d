"""lmms-eval with `--model tokenprune` on both embedded models, local pictures and a local task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval", reason="`make test-lmms` installs it")

import datasets
import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from tokenprune import patch_model
from tokenprune.chat import Chat, load_chat
from tokenprune.eval.journal import read_records
from tokenprune.zoo import scenes

N = 5
TASK = """\
task: {name}
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 8, until: ["ASSISTANT:"], do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}
metadata: {{version: 0.0}}
"""
UTILS = """\
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A task with its data: `local_scenes`."""
    home = tmp_path_factory.mktemp("lmms")
    asked = scenes.suite("test", N, 0)
    rows = [{"question": s.question, "answer": s.answer, "image": s.image} for s in asked]
    features = {"question": datasets.Value("string"), "answer": datasets.Value("string")}
    save(home, "local_scenes", rows, datasets.Features(features | {"image": datasets.Image()}))
    (home / "utils.py").write_text(UTILS)
    return home


def save(home, name, rows, features):
    table = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict({"test": table}).save_to_disk(str(home / f"{name}_data"))
    (home / f"{name}.yaml").write_text(TASK.format(name=name, data=home / f"{name}_data"))


def run(home, task, journal, model, **more):
    args = {"pretrained": model, "method": "flashvlm", "keep": 0.25, "journal": str(journal), **more}
    return simple_evaluate(
        model="tokenprune", model_args=",".join(f"{k}={v}" for k, v in args.items()), tasks=[task], batch_size=2,
        device="cpu", task_manager=TaskManager(include_path=str(home), include_defaults=False), bootstrap_iters=0,
    )  # fmt: skip


def said(results, task):
    return [s["filtered_resps"][0] for s in sorted(results["samples"][task], key=lambda s: s["doc_id"])]


@torch.no_grad()
def expected(model, rows, medium, size, **method):
    """The same questions put to the model by hand."""
    chat = load_chat(model)
    with patch_model(chat.model, processor=chat.processor, **method):
        out = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            inputs = chat.inputs([medium(row) for row in part], [row["question"] for row in part])
            out += chat.text(chat.generate(inputs, 8))
    return out


def test_lmms_eval_finds_the_model():
    from tokenprune.integrations.lmms import TokenPrune

    assert get_model("tokenprune") is TokenPrune


@pytest.mark.parametrize("model", ["tiny-llava", "tiny-qwen"])
def test_pictures_are_answered_as_by_hand_and_once(home, tmp_path, monkeypatch, model):
    results = run(home, "local_scenes", tmp_path / "journal", model)
    rows = list(datasets.load_from_disk(str(home / "local_scenes_data"))["test"])
    answers = expected(model, rows, lambda row: row["image"].convert("RGB"), 2, method="flashvlm", keep=0.25)
    assert said(results, "local_scenes") == answers
    right = [a.lower() == row["answer"].lower() for a, row in zip(answers, rows)]
    score = results["results"]["local_scenes"]["exact_match,none"]
    assert score == pytest.approx(sum(right) / N) and sum(right) > 0
    records = read_records(tmp_path / "journal").values()
    assert len(records) == N and all(0 < r["equivalent"] < r["before"] / 2 for r in records)
    monkeypatch.setattr(Chat, "generate", lambda *a: pytest.fail("asked again"))
    again = run(home, "local_scenes", tmp_path / "journal", model)
    assert again["results"]["local_scenes"]["exact_match,none"] == score


def test_a_run_that_stops_goes_on_where_it_stopped(home, tmp_path, monkeypatch):
    real, calls = Chat.generate, []

    def generate(self, inputs, limit):
        calls.append(len(inputs["input_ids"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, inputs, limit)

    monkeypatch.setattr(Chat, "generate", generate)
    with pytest.raises(KeyboardInterrupt):
        run(home, "local_scenes", tmp_path / "journal", "tiny-llava")
    assert len(read_records(tmp_path / "journal")) == 2
    run(home, "local_scenes", tmp_path / "journal", "tiny-llava")
    assert calls == [2, 2, 2, 1] and len(read_records(tmp_path / "journal")) == N


def test_the_command(home, tmp_path):
    """As the README has it; lmms-eval exits with 0 whatever happens, so its file is what counts."""
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "tokenprune", "--model_args",
        f"pretrained=tiny-llava,method=divprune,keep=36,journal={tmp_path / 'journal'}", "--tasks", "local_scenes",
        "--include_path", str(home), "--limit", "2", "--batch_size", "1", "--device", "cpu", "--output_path",
        str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    files = list((tmp_path / "out").rglob("*_results.json"))
    assert len(files) == 1, done.stdout + done.stderr
    body = json.loads(files[0].read_text())
    assert "exact_match,none" in body["results"]["local_scenes"]
    assert [r["equivalent"] for r in read_records(tmp_path / "journal").values()] == [36, 36]
