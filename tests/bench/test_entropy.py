"""The entropy bench runs end to end on small shapes; nothing is said about its times."""

from tokenprune.bench.entropy import measure
from tokenprune.bench.result import Verdict
from tokenprune.bench.sizes import Size

GOALS = {"heads x heads": 0.1, "share of q, k, v": 0.05}
SMALL = Size("small", 1, 128, 0, 8, 8, 4, kind="entropy", goals=tuple(GOALS.items()))


def test_runs_end_to_end():
    seen = []
    lines = measure(SMALL, 3, tick=lambda *step: seen.append(step))
    assert seen == [(i, 3, "small") for i in (1, 2, 3)]
    assert all(line.size == "small" and line.ratio.pairs == 3 for line in lines)
    judged = {line.goal for line in lines if line.verdict is not Verdict.INFO}
    assert judged == set(GOALS.values()) == {0.1, 0.05}
