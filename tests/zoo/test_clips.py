"""The clip suites: seeded, balanced, split cleanly, and the answer is what the frames show."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from tokenprune.zoo import clips
from tokenprune.zoo.drawing import UNSURE
from tokenprune.zoo.motion import FRAMES, PLOTS, RATE, SIDE, draw_clip
from tokenprune.zoo.splits import is_test
from tokenprune.zoo.vocabulary import COLOURS, HELD_OUT_PAIRS, HELD_OUT_WORDS, SHAPES


@pytest.fixture(scope="module")
def samples():
    return clips.suite("test", 140)


def test_the_same_suite_comes_out_every_time(samples):
    again = clips.suite("test", 140)
    assert again == samples
    assert clips.suite_hash(again) == clips.suite_hash(samples)
    assert clips.suite_hash(clips.suite("test", 140, seed=1)) != clips.suite_hash(samples)
    assert all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(samples[0].frames, again[0].frames)
    )


def test_clips_have_sixteen_frames_of_64_tokens(samples):
    for sample in samples[:14]:
        assert len(sample.frames) == FRAMES == 16
        assert all(frame.size == (SIDE, SIDE) and frame.mode == "RGB" for frame in sample.frames)
        assert (SIDE // 16) ** 2 >= 64
        assert sample.timestamps == [k / RATE for k in range(FRAMES)] and sample.fps == RATE


def test_test_clips_are_never_drawn_in_training(samples):
    from tokenprune.zoo.training.cells import training_clip

    assert all(is_test(sample.clip) for sample in samples)
    assert not any(is_test(sample.clip) for sample in clips.suite("train", 35))
    rng = random.Random(1)
    assert not any(is_test(training_clip(rng)) for _ in range(200))


def test_training_and_test_never_show_what_is_held_out(samples):
    for sample in samples:
        assert not {(actor.colour, actor.shape) for actor in sample.clip.actors} & HELD_OUT_PAIRS
        assert not sample.clip.word or sample.clip.word[0] not in HELD_OUT_WORDS


def test_held_out_questions_are_about_what_is_held_out():
    names = {" ".join(pair) for pair in HELD_OUT_PAIRS}
    for sample in clips.suite("held_out", 35):
        assert sample.answer in names | set(HELD_OUT_WORDS) or any(
            f"{actor.colour} {actor.shape}" in names for actor in sample.clip.actors
        )


def test_kinds_and_answers_are_balanced(samples):
    kinds = Counter(sample.kind for sample in samples)
    assert set(kinds) == set(clips.KINDS) and max(kinds.values()) - min(kinds.values()) <= 1
    for kind, share in clips.majority(samples).items():
        assert share <= 1 / clips.CLOSED.get(kind, 8) + 0.16, kind


def _seen(clip, frame: int) -> set[str]:
    return {f"{thing.colour} {thing.shape}" for thing in clip.things(frame)}


def test_answers_are_true(samples):
    for sample in samples:
        clip = sample.clip
        shows = [_seen(clip, frame) for frame in range(FRAMES)]
        first = clip.actors[0]
        if sample.kind == "direction":
            start, end = first.at(0), first.at(FRAMES - 1)
            moved = (end.x - start.x, end.y - start.y)
            axis = "left right up down".split().index(sample.answer)
            assert moved[axis // 2] * (1 if axis % 2 else -1) > 40
        elif sample.kind == "order":
            comers = [frame for frame in range(1, FRAMES) if shows[frame] - shows[frame - 1]]
            assert shows[comers[0 if "first" in sample.question else -1]] - shows[0] >= {sample.answer}
            assert len(comers) == 2 and comers[1] - comers[0] >= 4
        elif sample.kind == "often":
            gone = [first.name not in show for show in shows]
            times = sum(b and not a for a, b in itertools.pairwise(gone))
            assert sample.answer == str(times) and first.name in sample.question
        elif sample.kind == "before":
            assert shows[0] == {sample.answer} and sample.answer not in shows[clip.cut]
        elif sample.kind == "change":
            assert (sample.answer == "yes") == any(show != shows[0] for show in shows)
        elif sample.kind == "flash":
            assert {clip.text(frame) for frame in range(FRAMES)} == {"", sample.answer}
        else:
            near = min(abs(a.x - b.x) for a, b in [_pair(clip, frame) for frame in range(FRAMES)] if b)
            assert (sample.answer == "yes") == (near < 16)


def _pair(clip, frame: int):
    return [actor.at(frame) for actor in clip.actors[:2]]


def test_things_stay_in_the_picture_and_apart(samples):
    for sample in samples:
        for frame in range(FRAMES):
            things = sample.clip.things(frame)
            for thing in things:
                assert thing.x - 8 >= 0 and thing.x + 8 <= SIDE and thing.y - 8 >= 0 and thing.y + 8 <= SIDE
                assert thing.colour in COLOURS and thing.shape in SHAPES
            if sample.kind != "merge":
                for i, a in enumerate(things):
                    for b in things[:i]:
                        assert abs(a.x - b.x) > 20 or abs(a.y - b.y) > 20


def test_boxes_lie_in_the_frame(samples):
    for sample in samples:
        assert bool(sample.boxes) == (sample.kind != "change" or sample.answer == "yes")
        for left, top, right, bottom in sample.boxes:
            assert 0 <= left < right <= SIDE and 0 <= top < bottom <= SIDE


def test_fades_pans_and_cuts_show_in_the_pixels():
    rng = random.Random(3)
    made = [draw_clip(rng, plot=plot) for plot in PLOTS for _ in range(12)]
    fading = next(clip for clip in made if clip.fade == "in")
    light = [np.asarray(frame).mean() for frame in clips.render(fading)]
    assert light[0] < 0.6 * light[-1]
    cut = next(clip for clip in made if clip.cut and not clip.fade)
    frames = [np.asarray(frame, np.float32) for frame in clips.render(cut)]
    jumps = [np.abs(b - a).mean() for a, b in itertools.pairwise(frames)]
    assert int(np.argmax(jumps)) == cut.cut - 1
    assert any(clip.pan != (0, 0) for clip in made)


def test_labels_of_a_step_are_what_both_frames_show():
    from tokenprune.zoo.training.cells import clip_labels

    rng = random.Random(2)
    clip = draw_clip(rng, plot="blink")
    labels = clip_labels(clip)
    assert labels["centre"].shape == (8, 8, 8)
    counts = (labels["centre"] == 1).sum((1, 2))
    assert counts.tolist() == [len(clip.things(2 * step)) for step in range(8)]
    moving = clip_labels(draw_clip(rng, plot="motion"))
    assert (moving["colour"] == UNSURE).any()


@pytest.mark.parametrize(("split", "n"), [("validation", 9), ("test", 0)])
def test_bad_requests_are_refused(split, n):
    with pytest.raises(ValueError):
        clips.suite(split, n)
