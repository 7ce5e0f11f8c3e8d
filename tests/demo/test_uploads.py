"""Uploads are refused by size, type, pixels and duration, in words, and without their folder."""

import pytest
from PIL import Image

from tests.media.make import write
from tests.media.test_pictures import png_header
from tokenprune.demo.shelf import Shelf, label_of
from tokenprune.demo.uploads import Limits, take, take_clip, take_picture, take_question
from tokenprune.errors import InputError, UnknownNameError

LIMITS = Limits(mib=1, pixels=10_000, seconds=3, frames=8, question=20)


def refused(path, *parts, limits=LIMITS, clip=False):
    with pytest.raises(InputError) as caught:
        take("clip" if clip else "picture", str(path), str(path), 4, limits)
    for part in (path.name, *parts):
        assert part in str(caught.value)
    assert str(path.parent) not in str(caught.value)


def test_pictures(tmp_path):
    good = tmp_path / "good.png"
    Image.new("RGB", (20, 10), "red").save(good)
    assert take_picture(str(good), LIMITS).size == (20, 10)
    (tmp_path / "text.png").write_text("not a picture")
    refused(tmp_path / "text.png", "not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", "empty file")
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    refused(tmp_path / "bomb.png", "limit")
    Image.new("RGB", (200, 200)).save(tmp_path / "large.png")
    refused(tmp_path / "large.png", "40,000 pixels")
    (tmp_path / "heavy.png").write_bytes(b"\0" * (2**20 + 1))
    refused(tmp_path / "heavy.png", "at most 1")
    (tmp_path / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    refused(tmp_path / "page.svg", "not a picture")
    refused(tmp_path / "gone.png", "send it again")
    with pytest.raises(InputError, match="no picture yet"):
        take_picture(None, LIMITS)


def test_clips(tmp_path):
    clip = write(tmp_path / "clip.mp4", count=25)
    wide = Limits(mib=1, seconds=3, frames=8)
    assert len(take_clip(str(clip), 4, wide).frames) == 4
    refused(clip, "pixels", clip=True)  # of one frame
    long = write(tmp_path / "long.mp4", count=100)
    refused(long, "max_seconds", limits=wide, clip=True)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    refused(tmp_path / "list.mp4", "not a video", limits=wide, clip=True)
    with pytest.raises(InputError, match="frames=9"):
        take_clip(str(clip), 9, wide)
    with pytest.raises(InputError, match="no clip yet"):
        take_clip(None, 4, wide)


def test_questions():
    assert take_question("  what? ", "Describe.", LIMITS) == "what?"
    assert take_question(" \n", "Describe.", LIMITS) == "Describe."
    with pytest.raises(InputError, match="21 characters"):
        take_question("x" * 21, "", LIMITS)


def test_models_are_those_that_were_named(tmp_path, monkeypatch):
    shelf = Shelf(["tiny-llava"])
    assert shelf.names == ["tiny-llava"] and shelf.desk("tiny-llava") is shelf.desk("tiny-llava")
    with pytest.raises(UnknownNameError, match="tiny-llava"):
        shelf.desk("owner/model")
    with pytest.raises(InputError):
        Shelf(["./nowhere"])
    assert label_of(str(tmp_path)) == tmp_path.name


def test_a_free_model_is_a_hub_id_and_never_a_folder(tmp_path, monkeypatch):
    shelf = Shelf(["tiny-llava"], open_to_all=True)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("/etc", "../x/y", "owner/model", "owner/..", "a", "", "https://x/y", "owner/mo del"):
        with pytest.raises(InputError, match="owner/name"):
            shelf.desk(name)
    desk = shelf.desk("owner/other")
    assert shelf.desk("owner/other") is desk and shelf.names == ["tiny-llava"]
    assert shelf.desk("owner/third") is not desk and list(shelf._extra) == ["owner/third"]
