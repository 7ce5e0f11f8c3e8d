import pytest

from tokenprune.errors import BudgetError, InputError, UnknownNameError
from tokenprune.eval.rows import Row, plan_rows


def test_the_baselines_are_always_there():
    rows = plan_rows([], [0.5, 64], seeds=3)
    assert [r.label for r in rows[:2]] == ["none", "blind"]
    found = {(r.label, r.keep, r.seed) for r in rows[2:]}
    expected = {("random", k, s) for k in (0.5, 64) for s in range(3)}
    expected |= {(name, k, None) for name in ("uniform", "pool", "resize") for k in (0.5, 64)}
    assert found == expected and len(rows) == 2 + len(expected)


def test_a_method_named_again_is_not_run_twice():
    assert plan_rows(["uniform", "none", "resize", "random"], [0.5]) == plan_rows([], [0.5])


def test_hyper_parameters_labels_and_chains():
    rows = plan_rows(
        [
            {"name": "flashvlm", "label": "all pairs", "window": None, "keeps": [0.3]},
            {"chain": ["uniform", {"name": "flashvlm", "keep": 0.5}], "label": "two"},
        ],
        [0.25],
    )
    pairs, chain = rows[-2], rows[-1]
    assert pairs.keep == 0.3 and pairs.reducers()[0].hyper()["window"] is None
    assert [m.name for m in chain.reducers()] == ["uniform", "flashvlm"] and chain.reducers()[1].keep == 0.5
    assert chain.label == "two" and chain.keep is None


def test_the_key_says_all_that_can_change_an_answer_and_nothing_else():
    one = Row("a", 0.5, (("flashvlm", "{}"),))
    assert one.key == Row("b", 0.5, (("flashvlm", "{}"),)).key == "flashvlm keep=0.5"
    others = {
        Row("a", 0.25, one.methods).key,
        Row("a", 0.5, (("flashvlm", '{"window": null}'),)).key,
        Row("a", 0.5, (("random", "{}"),), 1).key,
        Row("a", 0.5, (("random", "{}"),), 2).key,
        Row("none").key,
    }
    assert len(others | {one.key}) == 6


@pytest.mark.parametrize(("methods", "keeps", "error", "says"), [
    (["flashvml"], [0.5], UnknownNameError, "flashvlm"),
    ([{"name": "flashvlm", "windw": 3}], [0.5], UnknownNameError, "window"),
    ([{"label": "x"}], [0.5], InputError, "needs a `name`"),
    ([{"chain": [3]}], [0.5], InputError, "each link"),
    ([], [], InputError, "no keep"),
    ([], [1.5], BudgetError, r"\(0, 1\]"),
    (["flashvlm", {"name": "flashvlm", "window": None}], [0.5], InputError, "give one of them a `label`"),
])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_runs(methods, keeps, error, says):
    with pytest.raises(error, match=says):
        plan_rows(methods, keeps)
