"""The sampling rule: numbers worked out by hand, transformers' own rule, and a slow restatement for uneven times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from tests.stock import needs_exact_sampling
from tokenprune.errors import InputError
from tokenprune.media import sample_indices, sample_times


def test_the_rule_in_numbers():
    assert sample_indices(97, 25.0, frames=8) == (0, 12, 24, 36, 48, 60, 72, 84)
    assert sample_indices(97, 25.0, rate=2.0) == (0, 13, 27, 41, 55, 69, 83)
    assert sample_indices(5, 25.0, frames=5) == (0, 1, 2, 3, 4)
    assert sample_indices(3, 25.0, frames=64) == (0, 1, 2)  # no more than there are
    assert sample_indices(4, 1.0) == (0, 1, 2, 3)
    assert sample_indices(3, 25.0, rate=0.5) == (0,)  # never nothing
    assert sample_indices(10, 25.0, rate=1000.0) == tuple(range(10))
    assert sample_times(100, 25.0, frames=4) == (0.0, 1.0, 2.0, 3.0)
    assert sample_times(97, 25.0, rate=2.0) == pytest.approx([i * 3.88 / 7 for i in range(7)])


@settings(derandomize=True, max_examples=200)
@given(total=st.integers(1, 4000), n=st.integers(1, 900), fps=st.sampled_from([5.0, 24.0, 25.0, 29.97, 60.0]))
def test_it_is_the_default_of_transformers(total, n, fps):
    needs_exact_sampling()
    about = VideoMetadata(total_num_frames=total, fps=fps)
    expected = default_sample_indices_fn(about, num_frames=min(n, total))
    assert sample_indices(total, fps, frames=n) == tuple(expected.tolist())
    by_rate = sample_indices(total, fps, rate=2.0)
    theirs = default_sample_indices_fn(about, fps=2.0)
    # Ours is one more where theirs loses a whole number to rounding.
    assert len(by_rate) - len(theirs) in (0, int(abs(total / fps * 2 - round(total / fps * 2)) < 1e-6))
    if len(by_rate) == len(theirs):
        assert by_rate == tuple(theirs.tolist())


def on_screen(times, duration, n):
    """What a viewer sees at the beginning of each of n equal stretches, a millisecond in."""
    seen = []
    for i in range(n):
        moment = i * duration / n + 0.001
        seen.append(max(k for k, time in enumerate(times) if time <= moment))
    return tuple(seen)


@settings(derandomize=True, max_examples=200)
@given(gaps=st.lists(st.integers(2, 3000), min_size=2, max_size=60), n=st.integers(1, 60))
def test_uneven_times(gaps, n):
    times = np.concatenate([[0], np.cumsum(gaps[:-1])]) / 1000
    total, duration = len(gaps), sum(gaps) / 1000
    got = sample_indices(total, total / duration, frames=n, times=times, duration=duration)
    step = duration / total
    uneven = any(abs(time - i * step) >= step / 2 for i, time in enumerate(times))
    if n < total and uneven:
        assert got == on_screen(times.tolist(), duration, n)
    else:
        assert got == sample_indices(total, 1.0, frames=n)
    assert list(got) == sorted(got) and len(got) == min(n, total)


def test_a_clock_of_milliseconds_is_still_regular():
    """30 frames a second in a webm begin at 0, 33, 67, 100 ms: rounding must not show a frame too early."""
    times = [round(i * 1000 / 30) / 1000 for i in range(60)]
    assert sample_indices(60, 30.0, frames=30, times=times, duration=2.0) == tuple(range(0, 60, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "frames"),
        ({"frames": 2.5}, "frames"),
        ({"frames": True}, "frames"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": "2"}, "rate"),
        ({"frames": 2, "rate": 1.0}, "not both"),
        ({"duration": -1.0}, "duration"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        sample_indices(10, 25.0, **arguments)
    with pytest.raises(InputError, match="total"):
        sample_indices(0, 25.0)
