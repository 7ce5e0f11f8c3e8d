"""The entropy bench runs end to end on small shapes; nothing is said about its times."""

from tokenprune.bench.entropy import GOALS, measure
from tokenprune.bench.result import Verdict


def test_runs_end_to_end():
    seen = []
    lines = measure(n=12, heads=8, width=16, rounds=3, tick=lambda *step: seen.append(step))
    assert seen == [(i, 3, "entropy-12") for i in (1, 2, 3)]
    assert all(line.size == "entropy-12" and line.ratio.pairs == 3 for line in lines)
    judged = {line.goal for line in lines if line.verdict is not Verdict.INFO}
    assert judged == set(GOALS.values()) == {0.1, 0.05}
