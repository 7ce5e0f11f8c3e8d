"""The clock around the steps of a training phase: when it stops, what it writes, what it keeps and goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenprune.zoo.training import common


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 500.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(common.time, "time", clock.time)
    return clock


def go(out: Path, clock: Clock, minutes: float, kept: list[int], **options) -> list[float]:
    """Steps of two seconds; the phase learns to count to the number of its steps."""
    state = common.load(out / "phase.pt")
    learnt = {"count": state["count"] if state else 0}

    def contents() -> dict:
        kept.append(learnt["count"])
        return dict(learnt)

    run = common.Run(out, "phase", minutes, state, contents, **options)
    seen = []
    for seconds in run.steps():
        seen.append(seconds)
        clock.now += 2
        learnt["count"] += 1
        run.mean.add(value=float(run.step))
    return seen


def test_a_phase_stops_with_its_minutes_and_goes_on_where_it_was_left(tmp_path, clock):
    assert go(tmp_path, clock, 0.2, []) == [0, 2, 4, 6, 8, 10]
    state = common.load(tmp_path / "phase.pt")
    assert state == {"count": 6, "step": 6, "seconds": 12.0}
    clock.now += 1000  # nobody was there
    assert go(tmp_path, clock, 0.3, []) == [12, 14, 16]
    assert common.load(tmp_path / "phase.pt") == {"count": 9, "step": 9, "seconds": 18.0}
    assert go(tmp_path, clock, 0.3, []) == []


def test_it_keeps_now_and_then_and_at_the_end(tmp_path, clock):
    kept: list[int] = []
    go(tmp_path, clock, 0.5, kept, keep_every=7)  # kept after 8, 16 and 24 of 30 seconds
    assert kept == [4, 8, 12, 15]


def test_the_journal_has_the_mean_since_its_last_line(tmp_path, clock):
    go(tmp_path, clock, 0.2, [], journal_every=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"], line["seconds"], line["value"]) for line in lines] == [
        ("phase", 3, 6.0, 1.0),
        ("phase", 6, 12.0, 4.0),
    ]


def test_only_the_first_of_a_team_writes_and_all_go_by_its_clock(tmp_path, clock):
    class Second:
        rank = 1
        told = iter([0.0, 5.0, 60.0])

        def agree(self, _: float) -> float:
            return next(self.told)

    kept: list[int] = []
    assert go(tmp_path, clock, 1, kept, journal_every=1, keep_every=0, team=Second()) == [0, 5]
    assert kept == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "share", "factor"), [(0, 0.0, 0.1), (4, 0.0, 0.5), (9, 0.0, 1.0), (99, 1.0, 0.2)]
)
def test_the_rate_climbs_by_steps_and_falls_by_time(step, share, factor):
    assert common.schedule(step, share, 10, 0.2) == pytest.approx(factor)


def test_the_rate_is_half_way_down_in_the_middle():
    assert common.schedule(50, 0.5, 10, 0.2) == pytest.approx(0.6)
