"""The document suites: seeded, split cleanly, and the answer is what the page says."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.zoo import documents
from tokenprune.zoo.pages import CELL, CHARACTERS, FACES, KINDS, LENGTH, TOKENS, draw_page
from tokenprune.zoo.splits import is_test
from tokenprune.zoo.typesetting import (
    FIELDS,
    FILES,
    FONTS,
    LINE_END,
    PAGE_END,
    SPACE,
    START,
    TURN,
    label_cells,
    render,
)
from tokenprune.zoo.vocabulary import HELD_OUT_WORDS, LETTERS, TRAIN_WORDS


@pytest.fixture(scope="module")
def samples():
    return documents.suite("test", 300)


@pytest.fixture(scope="module")
def drawn():
    rng = random.Random(0)
    return [draw_page(rng) for _ in range(300)]


def test_the_same_suite_comes_out_every_time(samples):
    again = documents.suite("test", 300)
    assert again == samples
    assert documents.suite_hash(again) == documents.suite_hash(samples)
    assert documents.suite_hash(documents.suite("test", 300, seed=1)) != documents.suite_hash(samples)
    first, second = samples[0].image, again[0].image
    assert first is not second and np.array_equal(np.asarray(first), np.asarray(second))


def test_pages_have_the_sizes_of_the_rung(samples, drawn):
    for page in [sample.page for sample in samples] + drawn:
        assert TOKENS[0] <= page.tokens <= TOKENS[1]
        assert LENGTH[0] <= len(page.text) <= LENGTH[1]
    for sample in samples[:40]:
        assert sample.image.size == (sample.page.columns * CELL, sample.page.rows * CELL)


def test_margins_are_cropped(drawn):
    for page in drawn:
        last = max(line[0].row for line in page.lines)
        right = max(piece.end for line in page.lines for piece in line)
        assert page.rows - last <= 3 and page.columns - right <= 2


def test_test_pages_are_never_drawn_in_training(samples):
    from tokenprune.zoo.training.cells import training_page

    assert all(is_test(sample.page) for sample in samples)
    assert not any(is_test(sample.page) for sample in documents.suite("train", 100))
    rng = random.Random(1)
    assert not any(is_test(training_page(rng, 4, 12)) for _ in range(200))


def test_held_out_words_are_new():
    text = " ".join(sample.page.text for sample in documents.suite("held_out", 60)).split()
    words = {word for word in text if word.isalpha() and len(word) > 2} - {"TOTAL", "DATE"}
    assert words <= set(HELD_OUT_WORDS) and not words & set(TRAIN_WORDS)


def _read(page) -> str:
    """The page as its cell labels spell it: from cell to cell by what was read before. An oracle for the labels."""
    labels = label_cells(page)
    lines, characters = [], {}
    for row, column in zip(*np.nonzero(labels["char"])):
        characters[row, column] = CHARACTERS[labels["char"][row, column] - 1]
    for row in sorted({row for row, _ in characters}):
        text = ""
        for column in sorted(c for r, c in characters if r == row):
            text += (" " if labels["before"][row, column] == SPACE else "") + characters[row, column]
        lines.append(text)
    return "\n".join(lines)


def test_the_cells_spell_the_page(samples):
    for sample in samples:
        assert _read(sample.page) == sample.page.text


def test_labels_say_what_stands_before_and_behind(drawn):
    for page in drawn[:100]:
        labels = label_cells(page)
        shown = labels["char"] > 0
        assert (labels["before"] == START).sum() == 1 and (labels["after"] == PAGE_END).sum() == 1
        assert (labels["before"] == TURN).sum() == (labels["after"] == LINE_END).sum() == len(page.lines) - 1
        for name, most in FIELDS.items():
            assert ((labels[name] > 0) == shown).all() and labels[name].max() <= most


def test_answers_are_what_the_page_says(samples):
    for sample in samples:
        lines = sample.page.text.split("\n")
        if sample.kind == "page":
            assert sample.answer == sample.page.text
        elif sample.kind == "line":
            number = int(sample.question.removeprefix("read line ").rstrip("."))
            assert sample.answer == lines[number - 1]
        else:
            key = sample.question.removeprefix("what is the ").rstrip("?")
            (line,) = [line for line in lines if key in line.split()[:2]]
            assert line.endswith(" " + sample.answer)
        for left, top, right, bottom in sample.boxes:
            assert 0 <= left < right <= sample.image.width and 0 <= top < bottom <= sample.image.height


def test_keys_of_a_page_are_different(drawn):
    for page in drawn:
        keys = [key for key, _ in page.fields]
        assert len(keys) == len(set(keys))
        assert (page.kind == "lines") == (not keys)


def test_nothing_overlaps_and_nothing_leaves_the_page(drawn):
    for page in drawn:
        cells = [
            (piece.row, piece.column + k * piece.pitch)
            for line in page.lines
            for piece in line
            for k, character in enumerate(piece.text)
            if character != " "
        ]
        assert len(cells) == len(set(cells))
        assert all(0 <= row < page.rows and 0 <= column < page.columns for row, column in cells)


def test_kinds_faces_and_answers_are_mixed(samples, drawn):
    kinds = Counter(sample.kind for sample in samples)
    assert set(kinds) == set(documents.KINDS) and kinds["page"] == 120
    assert set(Counter(page.kind for page in drawn)) == set(KINDS)
    used = {piece.face for page in drawn for line in page.lines for piece in line}
    assert used == set(FACES)
    assert max(documents.majority(samples).values()) <= 0.05


def test_characters_are_dark_on_light(drawn):
    for page in drawn[:30]:
        pixels = np.asarray(render(page).convert("L"), np.int32)
        labels = label_cells(page)["char"]
        cells = (
            pixels.reshape(page.rows, CELL, page.columns, CELL)
            .transpose(0, 2, 1, 3)
            .reshape(*labels.shape, -1)
        )
        assert (cells.min(-1)[labels > 0] < np.median(pixels) - 50).all()


def test_letters_have_the_same_codes_in_pages_as_in_scenes():
    assert CHARACTERS.startswith(LETTERS) and len(set(CHARACTERS)) == len(CHARACTERS)


def test_fonts_ship_with_their_licence():
    assert all((FONTS / name).is_file() for name in FILES.values())
    assert "Bitstream Vera" in (FONTS / "LICENSE_DEJAVU.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("", "", 0), ("ABC", "", 3), ("ABC", "ABD", 1), ("AB", "BA", 2)]
)
def test_edit_distance(a, b, distance):
    assert documents.edit_distance(a, b) == documents.edit_distance(b, a) == distance


@settings(derandomize=True, deadline=None)
@given(a=st.text("AB \n", max_size=12), b=st.text("AB \n", max_size=12))
def test_edit_distance_is_that_of_the_metrics(a, b):
    """The suites' own figures need no extra; those of the runner come from a library."""
    levenshtein = pytest.importorskip("rapidfuzz.distance").Levenshtein
    assert documents.edit_distance(a, b) == levenshtein.distance(a, b)


def test_character_error_rate(samples):
    exact = [sample.answer for sample in samples]
    assert documents.character_error_rate(samples, exact) == 0
    assert documents.character_error_rate(samples[:1], [samples[0].answer + "X"]) == 1 / len(
        samples[0].answer
    )


@pytest.mark.parametrize(("split", "n"), [("validation", 9), ("test", 0)])
def test_bad_requests_are_refused(split, n):
    with pytest.raises(ValueError):
        documents.suite(split, n)
