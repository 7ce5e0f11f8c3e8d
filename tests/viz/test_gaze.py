"""The animation and the film strip of a moving gaze: the pixels of chosen and other cells, and the words beneath."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tokenprune.errors import InputError
from tokenprune.viz import GazePage, Gazing, Look, View, gaze_strip, palette, save_gif
from tokenprune.viz.lettering import flow, width
from tokenprune.viz.writing import in_the_making

from .test_looks import image

RED = (200, 40, 90)
WORDS = ["", *("a page of words that goes on and on until a second line begins " * 2).split()]


def looks(layers=(3, 5), steps=6, n=12):
    """Step s lights token s in the first layer, and all others in the second."""
    chosen = [
        {layers[0]: [[s]], **{k: [[i for i in range(n) if i != s]] for k in layers[1:]}} for s in range(steps)
    ]
    texts = [" ".join(WORDS[1 : 2 + s]) for s in range(steps + 1)]
    return [Look(s, chosen[s], texts[s], texts[s + 1]) for s in range(steps)]


def test_paper_stays_white_behind_a_picture_in_light_greys(tmp_path):
    grey = Image.fromarray(np.arange(225, 255, 0.5).astype(np.uint8).reshape(6, 10)).resize((80, 60))
    drawn = GazePage([View(grey, image(3, 4))], looks(), method="fixation")
    save_gif(drawn, tmp_path / "gaze.gif")
    with Image.open(tmp_path / "gaze.gif") as film:
        assert {film.convert("RGB").getpixel(at) for at in ((3, 3), (3, 300), (300, 3))} == {palette.PAGE}


def page(found=None, size=(80, 60)):
    views = [View(Image.new("RGB", size, RED), image(3, 4))]
    return GazePage(
        views, looks() if found is None else found, method="fixation", keep="keep 5%", question="What?"
    )


def close(one, other, by=14):
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= by


def is_lit(frame, box, y, x, rows=3, cols=4):
    left, top, right, bottom = box
    at = (left + (right - left) * (2 * x + 1) // (2 * cols), top + (bottom - top) * (2 * y + 1) // (2 * rows))
    return close(frame.getpixel(at), RED)


def test_a_frame_a_step_with_its_cells_lit(tmp_path):
    save_gif(drawn := page(), tmp_path / "gaze.gif")
    with Image.open(tmp_path / "gaze.gif") as film:
        assert film.n_frames == 6 and film.info["loop"] == 0 and film.size == (drawn.width, drawn.height)
        for step in range(6):
            film.seek(step)
            frame = film.convert("RGB")
            for token in range(12):
                y, x = divmod(token, 4)
                assert is_lit(frame, drawn.boxes[3], y, x) == (token == step)
                assert is_lit(frame, drawn.boxes[5], y, x) == (token != step)
            assert frame.getpixel((3, 3)) == palette.PAGE
            assert film.info["duration"] == (2500 if step == 5 else 450)


def test_the_words_of_a_step_are_marked():
    drawn = page()
    for place in range(6):
        pixels = np.asarray(drawn.frame(place))[drawn.written + 10 :]
        marked = (pixels == palette.MARK).all(-1).any(0).nonzero()[0]
        before = width(drawn.looks[place].before + " ", drawn.em)
        assert abs(marked[0] - drawn.margin - before) <= 4


def test_the_end_token_shows():
    ended = [*looks(), Look(6, {3: [[0]], 5: [[1]]}, "done", "done", ends=True)]
    pixels = np.asarray(page(ended).frame(6))[page(ended).written + 10 :]
    assert not (pixels == palette.MARK).all(-1).any()
    room = Image.new("RGB", (200, 40), palette.PAGE)
    in_the_making(ImageDraw.Draw(room), (2, 2), Look(0, {}, "", "", ends=True), 16, 190, 1)
    assert (np.asarray(room) != 255).any()


def test_a_long_answer_is_followed_to_its_last_lines():
    text = "one two three four five six seven eight nine ten " * 3
    views = []
    for lines in (1, 2):
        room = Image.new("RGB", (160, 160), palette.PAGE)
        in_the_making(ImageDraw.Draw(room), (2, 2), Look(0, {}, text, text + "eleven"), 16, 150, lines)
        ink = (np.asarray(room) != 255).any((1, 2)).nonzero()[0]
        assert (np.asarray(room) == palette.MARK).all(-1).any()
        views.append(ink[-1])
    assert views[0] < views[1] < 60


def test_of_many_layers_and_steps_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("tokenprune.viz.gaze.FRAMES", 5)
    many = [Look(s, {k: [[s % 12]] for k in range(7)}, "", str(s)) for s in range(40)]
    drawn = page(many)
    assert drawn.layers == [0, 3, 6]
    save_gif(drawn, tmp_path / "gaze.gif")
    with Image.open(tmp_path / "gaze.gif") as film:
        assert film.n_frames == 5
        film.seek(4)
        assert is_lit(film.convert("RGB"), drawn.boxes[6], 0, 3)  # step 39 looked at token 3
    with pytest.raises(InputError, match="no decode step"):
        page([])


def test_several_images_each_light_their_own():
    views = [
        View(Image.new("RGB", (80, 60), RED), image(3, 4), place=0),
        View(Image.new("RGB", (80, 60), RED), image(3, 4), place=1),
    ]
    drawn = GazePage(views, [Look(0, {2: [[0], [11]]}, "", "a")], method="fixation")
    left, top, right, _ = drawn.boxes[2]
    half, high = (right - left) // 2, (right - left) * 3 // 8
    frame = drawn.frame(0)
    assert is_lit(frame, (left, top, left + half, top + high), 0, 0)
    assert not is_lit(frame, (left, top, left + half, top + high), 2, 3)
    assert is_lit(frame, (left + half, top, right, top + high), 2, 3)
    assert not is_lit(frame, (left + half, top, right, top + high), 0, 0)


def test_a_strip_has_a_column_a_step_and_a_row_a_layer():
    views = [View(Image.new("RGB", (80, 60), RED), image(3, 4))]

    def red(found):
        sheet = gaze_strip([Gazing(views, found, "What is there?")], title="Gaze", caption="lit: chosen")
        return sheet, (np.asarray(sheet) == RED).all(-1).sum()

    one, lit_one = red(looks(layers=(3,), steps=2))
    assert one.width < red(looks(layers=(3,), steps=8))[0].width == red(looks(layers=(3,), steps=11))[0].width
    assert one.height < red(looks(layers=(3, 5), steps=2))[0].height
    # One cell of twelve in every picture of the first layer, eleven of twelve in the second.
    assert 9 < red(looks(layers=(3, 5), steps=2))[1] / lit_one < 15
    assert (
        gaze_strip([Gazing(views, looks(), "What?")] * 2).height
        > 1.8 * gaze_strip([Gazing(views, looks(), "What?")]).height
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(alphabet="ab cdWi\n.", max_size=60), st.integers(14, 120))
def test_flowing_text_loses_nothing_and_fits(text, room):
    lines = flow(text, 12, room)
    assert "".join(lines) == "".join(text.splitlines())
    assert all(width(line.rstrip(), 12) <= room or len(line.strip()) == 1 for line in lines)
