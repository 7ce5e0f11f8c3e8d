"""The drawn craters: the same everywhere, split by their ground, and the same ground in every view."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tokenprune.zoo import craters
from tokenprune.zoo.splits import is_test
from tokenprune.zoo.terrain import SIDE, View, draw_terrain, heights, picture_of, render


def test_the_same_arguments_give_the_same_suite():
    a, b = (craters.suite("test", 6, 2, seed=4) for _ in range(2))
    assert a == b and a.hash() == b.hash()
    assert np.array_equal(np.asarray(a.queries[3].image), np.asarray(b.queries[3].image))
    assert craters.suite("test", 6, 2, seed=5).hash() != a.hash()


def test_its_hash_is_the_one_that_results_quote():
    assert craters.suite("test", 8, 3, seed=0).hash() == "94e8f19ac707a274"


def test_two_gallery_views_and_five_queries_of_each_crater():
    suite = craters.suite("test", 12, 5, seed=1)
    assert len(suite.gallery) == 24 and len(suite.queries) == 25
    assert [g.kind for g in suite.gallery] == ["2x", "3x"] * 12
    assert [g.view.context for g in suite.gallery[:2]] == [2.0, 3.0]
    assert len({p.id for p in (*suite.gallery, *suite.queries)}) == 49
    assert {q.crater for q in suite.queries} == {g.crater for g in suite.gallery[:10]}
    assert all(q.crater in q.relevant for q in suite.queries)
    assert suite.gallery[0].image.size == (SIDE, SIDE) and suite.gallery[0].image.mode == "RGB"


def test_craters_of_one_ground_are_relevant_together():
    suite = craters.suite("test", 40, 40, seed=2)
    sizes = [len(q.relevant) for q in suite.queries]
    assert set(sizes) == {1, 2}
    known = {g.crater for g in suite.gallery}
    assert all(set(q.relevant) <= known for q in suite.queries)


def test_training_never_sees_the_ground_of_the_test():
    assert all(is_test(g.terrain) for g in craters.suite("test", 5, 1).gallery)
    assert not any(is_test(g.terrain) for g in craters.suite("train", 20, 1).gallery)


def test_what_is_refused():
    for arguments in (("dev", 5, 1), ("test", 0, 0), ("test", 5, 6)):
        with pytest.raises(ValueError):
            craters.suite(*arguments)


@pytest.fixture(scope="module")
def ground():
    return draw_terrain(random.Random(8), pairs=0.0)


def test_light_from_the_other_side_turns_bright_into_dark(ground):
    plain = {"contrast": 1.0, "noise": 0.0, "elevation": 0.5}
    west, east, again = (
        render(ground, View(azimuth=a, **plain)).astype(float) for a in (math.pi, 0.0, math.pi)
    )
    assert np.array_equal(west, again)
    assert np.corrcoef(west.ravel(), east.ravel())[0, 1] < -0.3


def test_a_turned_and_moved_camera_sees_the_same_ground(ground):
    frame = (0.3, -0.2, 2.0, 0.0)
    whole = heights(ground, frame, 224)
    turned = heights(ground, (0.3, -0.2, 2.0, math.pi / 2), 224)
    np.testing.assert_allclose(turned, np.rot90(whole), atol=2e-3)
    half = heights(ground, (0.8, 0.3, 1.0, 0.0), 112)
    np.testing.assert_allclose(half, whole[84:196, 84:196], atol=2e-3)


def test_what_training_cuts_out_is_what_the_suite_shows(ground):
    """Training cuts from coarse heights instead of drawing each picture."""
    view = View(noise=0.0)
    whole = (heights(ground, (0.0, 0.0, 3.0, 0.0), 512), (0.0, 0.0, 3.0, 0.0))
    frame = (0.2, 0.1, 1.5, 0.15)
    cut, drawn = picture_of(ground, view, frame, 56, whole), picture_of(ground, view, frame, 56)
    assert np.corrcoef(cut.ravel(), drawn.ravel())[0, 1] > 0.97


def test_clutter_covers_and_noise_grains(ground):
    clean = render(ground, View(noise=0.0)).astype(float)
    for view in (View(noise=0.0, clutter=3, veil=5), View(noise=0.08), View(noise=0.0, blur=2)):
        other = render(ground, view).astype(float)
        assert 1 < np.abs(other - clean).mean() < 60
