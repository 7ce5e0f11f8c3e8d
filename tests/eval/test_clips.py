"""Suites of clips and pages through the runner, on the small reader's architecture with random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.chat import Chat
from tokenprune.errors import InputError
from tokenprune.eval import evaluate, load_suite, write_report
from tokenprune.eval.answer import Answerer
from tokenprune.eval.coverage import distances
from tokenprune.eval.medium import fewer, grey, resized, size_of
from tokenprune.eval.resize import Resizer
from tokenprune.eval.rows import Row, plan_rows
from tokenprune.media import Clip
from tokenprune.zoo import build_qwen


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    model = build_qwen.new_model(layers=4).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    return Chat(model, build_qwen.build_processor(), "random-reader")


def film(frames=16, side=64, name="film"):
    rng = np.random.default_rng(frames)
    return Clip.of_frames(rng.integers(0, 255, (frames, side, side, 3), dtype=np.uint8), fps=4.0, name=name)


def test_a_clip_is_asked_about_like_a_picture(reader):
    inputs = reader.inputs([film(16), film(8)], ["does anything change?", "which way?"])
    assert inputs["video_grid_thw"].tolist() == [[8, 8, 8], [4, 8, 8]]
    # Two frames make one step in time, half a second at four frames a second.
    assert inputs["second_per_grid_ts"] == pytest.approx([0.5, 0.5])
    assert Resizer(reader).visual(inputs) == [8 * 16, 4 * 16]
    assert inputs["attention_mask"][1, 0] == 0, "padded on the left"
    assert len(reader.generate(inputs, 2)) == 2
    with pytest.raises(InputError, match="pictures and clips"):
        reader.inputs([film(), Image.new("RGB", (64, 64))], ["a", "b"])


def test_media_change_alike():
    clip = film(6)
    assert size_of(clip) == (64, 64) and size_of(resized(clip, (32, 48))) == (32, 48)
    assert (grey(clip).frames == 128).all() and grey(clip).timestamps == clip.timestamps
    thin = fewer(clip, 2)
    assert thin.indices == (0, 3) and thin.timestamps == (0.0, 0.75)
    assert np.array_equal(thin.frames, clip.frames[[0, 3]])


def test_fewer_frames_stay_within_the_budget_at_full_resolution(reader):
    resizer = Resizer(reader)
    inputs = resizer.fewer_frames([film(16), film(8)], ["which way?"] * 2, 0.5)
    assert inputs["video_grid_thw"].tolist() == [[4, 8, 8], [2, 8, 8]]
    assert resizer.visual(inputs) == [64, 32]
    with resizer.inputs([film(16)], ["which way?"], 0.25) as small:
        assert resizer.visual(small)[0] <= 32 and small["video_grid_thw"][0, 0] == 8


def test_rows_of_fewer_frames_are_for_clips_only():
    assert "frames" not in {row.label for row in plan_rows([], [0.5])}
    assert [row.keep for row in plan_rows([], [0.5, 0.1], video=True) if row.label == "frames"] == [0.5, 0.1]


def test_a_run_on_clips(reader, tmp_path):
    suite = load_suite({"name": "clips", "n": 14}).limited(2)
    assert suite.video and all(isinstance(s.picture.load(), Clip) for s in suite.samples[:2])
    methods = [{"name": "uniform", "label": "uniform frames", "over": "frames"}]
    results = evaluate(
        reader, suite, methods, [0.25, 0.1], out=tmp_path, max_new_tokens=2, batch=2, seeds=1, efficiency=0,
        coverage=1,
    )  # fmt: skip
    assert results.failed == 0
    covered = results.row("uniform", 0.25)["coverage"]
    assert 0 < covered["mean"] < covered["worst"] <= 2 and results.row("resize", 0.25)["coverage"] is None
    assert covered["mean"] < results.row("uniform", 0.1)["coverage"]["mean"]
    whole = results.row("none")["tokens"]["before"]
    for label in ("uniform", "uniform frames", "resize", "frames"):
        assert results.row(label, 0.25)["tokens"]["equivalent"] <= 0.25 * whole + 1, label
    low = results.row("frames", 0.1)
    assert low["state"] == "floor" and low["floor"] == pytest.approx(1 / 8)
    said = results.row("none")["answers"]
    assert set(said) == set(suite.kinds) and all(sum(shares.values()) == pytest.approx(1) for shares in said.values())
    text = write_report(results)[0].read_text()
    assert "floor 12.5 %" in text and "## What was answered" in text


def test_a_picture_too_small_for_the_processor_is_a_floor(reader, tmp_path):
    suite = load_suite({"name": "clips", "n": 14}).limited(1)
    results = evaluate(reader, suite, [], [0.02], out=tmp_path, max_new_tokens=1, batch=1, seeds=1, efficiency=0)
    low = results.row("resize", 0.02)
    assert low["state"] == "floor" and "smallest picture" in low["reason"] and results.failed == 0


def test_a_run_on_pages_reports_what_is_read_and_what_is_kept(reader, tmp_path):
    suite = replace(load_suite({"name": "documents", "n": 3}), max_new_tokens=4)
    methods = [
        {"name": "fixation", "label": "look", "keeps": [0.05], "focal": 1, "k_min": 1},
        {"name": "fastv", "layer": 2, "keeps": [0.75]},
    ]
    results = evaluate(reader, suite, methods, [0.5], out=tmp_path, batch=2, seeds=1, efficiency=0)
    look = results.row("look", 0.05)
    n = look["tokens"]["before"]
    assert look["sparse"] == pytest.approx(0.05, abs=0.01) and look["tokens"]["kept"] == n
    # One of four layers reads everything; the first step is dense before anything was chosen.
    assert 0.25 < look["tokens"]["equivalent"] / n <= 1
    fastv = results.row("fastv", 0.75)
    assert fastv["sparse"] is None and fastv["tokens"]["kept"] == fastv["tokens"]["equivalent"] < n
    assert set(look["metrics"]) == {"exact", "cer", "edit"}
    assert set(look["metrics"]["cer"]["kinds"]) <= {"page", "line", "value"}
    text = write_report(results)[0].read_text()
    assert "## What is read and what is kept" in text and "## The same answers by cer" in text


def test_blind_and_unpruned_differ_on_a_clip(reader):
    answerer = Answerer(reader, 2)
    with answerer.prepared(Row("blind"), [film()], ["which way?"]) as (inputs, handle):
        assert handle is None and answerer.resizer.visual(inputs) == [0]


def test_distances_by_hand():
    tokens = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]])
    found = distances(tokens, tokens[:2])
    assert found.tolist() == pytest.approx([0, 0, 1 - 0.5**0.5, 1.0], abs=1e-6)


def test_a_listing_of_clips(tmp_path):
    folder = tmp_path / "walk"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(folder / f"{i}.png")
    line = {"video": "walk", "question": "who?", "answer": "me"}
    listing = tmp_path / "films.jsonl"
    listing.write_text(json.dumps(line) + "\n")
    suite = load_suite({"name": str(listing), "frames": 4})
    clip = suite.samples[0].picture.load()
    assert suite.video and clip.indices == (0, 5, 10, 15)
    assert load_suite({"name": str(listing), "frames": 5}).hash() != suite.hash()
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    listing.write_text(json.dumps(line) + "\n" + json.dumps({**line, "image": "a.png", "video": None}) + "\n")
    with pytest.raises(InputError, match="video"):
        load_suite(str(listing))
    listing.write_text(json.dumps(line) + "\n" + json.dumps({"image": "a.png", "question": "x"}) + "\n")
    with pytest.raises(InputError, match="not of both"):
        load_suite(str(listing))
