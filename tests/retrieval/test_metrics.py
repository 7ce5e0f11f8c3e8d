"""Recall and mean average precision against their definition, one rank at a time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tokenprune.errors import InputError
from tokenprune.retrieval.metrics import ranking_of, rerank, right_answers, score_rankings


def by_definition(ranking: list[int], right: set[int]) -> float:
    total = 0.0
    for k in range(1, len(ranking) + 1):
        if ranking[k - 1] in right:
            total += sum(row in right for row in ranking[:k]) / k
    return total / len(right)


def test_by_hand():
    """Four pictures are right; they stand at 1, 3 and 6, and one is not found at all."""
    right = np.zeros((1, 9), dtype=bool)
    right[0, [0, 2, 5, 8]] = True
    found = score_rankings(np.array([[0, 1, 2, 3, 4, 5, 6]]), right)
    assert math.isclose(found.map, (1 / 1 + 2 / 3 + 3 / 6) / 4)
    assert found.recall == {1: 1.0, 5: 1.0, 10: 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_against_the_definition(seed):
    rng = random.Random(seed)
    right = np.array([[rng.random() < 0.15 for _ in range(40)] for _ in range(12)])
    right[3] = False
    rankings = np.array([rng.sample(range(40), 30) for _ in range(12)])
    found = score_rankings(rankings, right, cuts=(1, 5, 10))
    sets = [set(np.flatnonzero(row)) for row in right]
    asked = [i for i, s in enumerate(sets) if s]
    each = [by_definition(rankings[i].tolist(), sets[i]) for i in asked]
    np.testing.assert_allclose(found.precisions[asked], each)
    assert found.skipped == 12 - len(asked) and np.isnan(found.precisions[3])
    assert math.isclose(found.map, sum(each) / len(each))
    for k, share in found.recall.items():
        hits = [bool(sets[i] & set(rankings[i, :k].tolist())) for i in asked]
        assert math.isclose(share, sum(hits) / len(hits))


def test_every_crater_of_the_cluster_counts():
    gallery = ["a", "a", "b", "b", "c", "c"]
    found = right_answers([("a",), ("a", "b"), ("x",), ("c", "x")], gallery)
    assert found.tolist() == [
        [True, True, False, False, False, False],
        [True, True, True, True, False, False],
        [False] * 6,
        [False, False, False, False, True, True],
    ]


def test_rankings_and_shortlists():
    scores = np.array([[0.1, 0.9, 0.9, 0.3]])
    first = ranking_of(scores)
    assert first.tolist() == [[1, 2, 3, 0]]  # ties to the lower row
    other = np.array([[0.9, 0.1, 0.2, 0.8]])
    assert rerank(first, other, 3).tolist() == [[3, 2, 1, 0]]  # row 0 is not on the list
    assert rerank(first, other, 4).tolist() == [[0, 3, 2, 1]]
    assert rerank(first, other, 0).tolist() == first.tolist()


def test_what_is_refused():
    with pytest.raises(InputError, match="one row a query"):
        score_rankings(np.zeros((2, 3), dtype=int), np.ones((1, 3), dtype=bool))
    with pytest.raises(InputError, match="no query"):
        score_rankings(np.zeros((1, 3), dtype=int), np.zeros((1, 3), dtype=bool))
