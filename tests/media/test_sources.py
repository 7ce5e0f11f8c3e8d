"""Clips that are not video files: animations, folders of frames, arrays, lists, and clips themselves."""

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.errors import InputError
from tokenprune.media import Clip, find_clips, load_clip
from tokenprune.media.readers import pillow

from .make import COUNT, HEIGHT, WIDTH, cut, draw, numbers, uneven, write_animation

UNIFORM = [0, 12, 24, 36, 48, 60, 72, 84]


@pytest.fixture
def frames():
    return np.stack([draw(number) for number in range(20)])


def save_folder(path, count=12):
    path.mkdir()
    for number in range(count):
        Image.fromarray(draw(number)).save(path / f"frame{number}.png")  # 10 sorts before 2 by name alone
    return path


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp"])
def test_animation(tmp_path, name):
    clip = load_clip(write_animation(tmp_path / name, COUNT), frames=8)
    assert numbers(clip) == list(clip.indices) == UNIFORM
    assert clip.timestamps == pytest.approx([i * 0.04 for i in UNIFORM])
    assert (clip.total, clip.backend, clip.missing) == (COUNT, "pillow", 0)
    assert clip.fps == pytest.approx(25.0) and clip.duration == pytest.approx(3.88)


def test_animation_with_long_and_short_frames(tmp_path):
    times = uneven(40)
    lengths = [*np.diff(times).tolist(), 100]
    clip = load_clip(write_animation(tmp_path / "uneven.gif", 40, lengths), frames=5)
    moments = [i * sum(lengths) / 5 + 1 for i in range(5)]
    assert numbers(clip) == [max(k for k, t in enumerate(times) if t <= moment) for moment in moments]
    assert clip.timestamps == pytest.approx([times[k] / 1000 for k in clip.indices])


def test_animation_without_lengths_lasts_as_browsers_show_it(tmp_path):
    clip = load_clip(write_animation(tmp_path / "quick.gif", 10, 0))
    assert clip.duration == pytest.approx(1.0) and clip.fps == pytest.approx(10.0)


def test_one_frame_and_transparency(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "still.gif")
    clip = load_clip(tmp_path / "still.gif", frames=4)
    assert (
        clip.frames.shape == (1, 8, 8, 3) and (clip.frames == 255).all()
    )  # laid over white, as pictures are


def test_truncated_and_corrupt_animations(tmp_path):
    short = load_clip(cut(write_animation(tmp_path / "moving.gif", 20), 0.6))
    assert numbers(short) == list(short.indices) and 5 < len(set(short.indices)) < 20
    (tmp_path / "header.gif").write_bytes(b"GIF89a" + b"\xff" * 40)
    with pytest.raises(InputError, match=r"header.gif: (corrupt|none of its)"):
        load_clip(tmp_path / "header.gif")


def test_limits_of_animations(tmp_path, monkeypatch):
    path = write_animation(tmp_path / "moving.gif", 20)
    monkeypatch.setattr(pillow, "MAX_FRAMES", 19)
    with pytest.raises(InputError, match="moving.gif: 20 frames, more than the limit"):
        load_clip(path, timeout=None)
    with pytest.raises(InputError, match="moving.gif.*limit of 100 pixels"):
        load_clip(path, max_pixels=100)


def test_folder_of_frames(tmp_path):
    path = save_folder(tmp_path / "shots")
    clip = load_clip(path, frames=4)
    assert numbers(clip) == [0, 3, 6, 9] and clip.timestamps == (0.0, 3.0, 6.0, 9.0)  # one a second
    assert (clip.fps, clip.duration, clip.total, clip.name, clip.backend) == (
        1.0,
        12.0,
        12,
        "shots",
        "folder",
    )
    faster = load_clip(path, source_fps=4.0, fps=2.0)
    assert numbers(faster) == [0, 2, 4, 6, 8, 10] and faster.timestamps == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert numbers(load_clip(path, indices=[11, 2])) == [11, 2]
    assert load_clip(path, frames=2, size=40).frames.shape == (2, 24, 40, 3)


def test_folder_with_a_frame_that_does_not_fit_or_is_bad(tmp_path):
    path = save_folder(tmp_path / "shots")
    Image.new("RGB", (8, 8)).save(path / "frame3.png")
    with pytest.raises(
        InputError, match=r"frame3.png: frames of one clip are of one size, not 8 x 8 and 160 x 96"
    ):
        load_clip(path)
    (path / "frame3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="frame3.png: not a picture"):
        load_clip(path)
    assert numbers(load_clip(path, indices=[0, 5])) == [0, 5]  # only what is asked for is opened
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no picture in this folder"):
        load_clip(tmp_path / "none")


def test_arrays_lists_and_tensors(frames):
    for source in (
        frames,
        list(frames),
        [Image.fromarray(f) for f in frames],
        torch.from_numpy(frames).permute(0, 3, 1, 2),
    ):
        clip = load_clip(source, frames=5, source_fps=10.0)
        assert numbers(clip) == list(clip.indices) == [0, 4, 8, 12, 16] and clip.backend == "array"
        assert clip.timestamps == pytest.approx((0.0, 0.4, 0.8, 1.2, 1.6))
    floats = load_clip(frames / 255.0, frames=2)
    assert numbers(floats) == [0, 10]


def test_of_frames(frames):
    clip = Clip.of_frames(frames, fps=10.0, name="drawn")
    assert numbers(clip) == list(range(20)) and (clip.fps, clip.duration, clip.name) == (10.0, 2.0, "drawn")
    assert clip.pictures()[3].size == (WIDTH, HEIGHT) and np.array_equal(
        np.asarray(clip.pictures()[3]), frames[3]
    )
    many = Clip.of_frames(
        np.zeros((900, 2, 2, 3), np.uint8), fps=0.01
    )  # no limit on what is in memory already
    assert len(many.frames) == 900
    with pytest.raises(InputError, match="drawn, frame 1: frames of one clip"):
        Clip.of_frames([frames[0], frames[0, :9]], 1.0, "drawn")
    for bad in (frames[0], [], 3, Image.new("RGB", (2, 2))):
        with pytest.raises(InputError, match="clip"):
            Clip.of_frames(bad, 1.0)
    with pytest.raises(InputError, match="fps"):
        Clip.of_frames(frames, 0.0)
    with pytest.raises(InputError, match="as many timestamps"):
        Clip(frames, (0.0,), 1.0, 1.0, (0,), 1)


def test_fewer_frames_of_a_clip(frames):
    clip = Clip.of_frames(frames, fps=10.0, name="drawn")
    fewer = load_clip(clip, frames=4)
    assert numbers(fewer) == list(fewer.indices) == [0, 5, 10, 15]
    assert (fewer.total, fewer.duration, fewer.name) == (20, 2.0, "drawn")
    again = load_clip(fewer, frames=2)
    assert numbers(again) == list(again.indices) == [0, 10] and again.timestamps == (0.0, 1.0)
    assert numbers(load_clip(clip, fps=2.0)) == [0, 5, 10, 15]
    assert load_clip(clip, size=40).frames.shape == (20, 24, 40, 3)


def test_metadata_has_the_keys_of_transformers(frames):
    from transformers.video_utils import VideoMetadata

    clip = load_clip(frames, frames=5, source_fps=10.0)
    about = VideoMetadata(**clip.metadata())
    assert about.timestamps == pytest.approx(clip.timestamps)
    assert dict(about) == {
        "total_num_frames": 20, "fps": 10.0, "width": WIDTH, "height": HEIGHT, "duration": 2.0,
        "video_backend": "array", "frames_indices": [0, 4, 8, 12, 16],
    }  # fmt: skip


def test_find_clips(tmp_path):
    for name in ("b10.mp4", "b2.webm", "A1.gif", "still.png", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert [c.name for c in find_clips(tmp_path)] == ["A1.gif", "b2.webm", "b10.mp4"]
    assert [c.name for c in find_clips(tmp_path / "b2.webm")] == ["b2.webm"]
    shots = save_folder(tmp_path / "shots")
    (found,) = find_clips(shots)
    assert found.name == "shots" and numbers(found.load(frames=2)) == [0, 6]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no video in this folder"):
        find_clips(tmp_path / "none")
    with pytest.raises(InputError, match="no such file"):
        find_clips(tmp_path / "gone")
    (memory,) = find_clips(np.zeros((2, 4, 4, 3), np.uint8))
    assert len(memory.load().frames) == 2
