"""Video files: the right frames with the right times from every decoder, and files that are damaged."""

import json
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from tokenprune.errors import InputError, MissingExtraError
from tokenprune.media import load_clip

from .make import BACKENDS, COUNT, HEIGHT, WIDTH, cut, numbers, turn, uneven, write

pytest.importorskip("av")

UNIFORM = [0, 12, 24, 36, 48, 60, 72, 84]
FILES = {
    "h264.mp4": "libx264",
    "h264.mkv": "libx264",
    "h264.mov": "libx264",
    "hevc.mp4": "libx265",
    "mpeg4.avi": "mpeg4",
    "vp8.webm": "libvpx",
    "vp9.webm": "libvpx-vp9",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


def video(folder, name, codec="libx264", **options):
    path = folder / name
    return path if path.exists() else write(path, codec, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FILES)
def test_exact_frames(folder, name, backend):
    path = video(folder, name, FILES[name])
    clip = load_clip(path, frames=8, backend=backend)
    assert numbers(clip) == list(clip.indices) == UNIFORM
    assert clip.timestamps == pytest.approx([i / 25 for i in UNIFORM], abs=1e-3)
    assert (clip.total, clip.missing, clip.name, clip.backend) == (COUNT, 0, name, backend)
    assert clip.fps == pytest.approx(25.0) and clip.duration == pytest.approx(3.88, abs=2e-3)
    assert clip.frames.shape == (8, HEIGHT, WIDTH, 3) and clip.frames.dtype == np.uint8
    asked = [96, 5, 5, 90, 13, 0]
    picked = load_clip(path, indices=asked, backend=backend)
    assert numbers(picked) == list(picked.indices) == asked
    assert numbers(load_clip(path, fps=2.0, backend=backend)) == [0, 13, 27, 41, 55, 69, 83]
    assert numbers(load_clip(path, backend=backend)) == list(range(COUNT))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_uneven_frame_rate_is_sampled_by_time(folder, name, backend):
    times = uneven()
    path = video(folder, name, times=times)
    clip = load_clip(path, frames=8, backend=backend)
    length = clip.duration
    assert abs(length - times[-1] / 1000) < 0.15  # the last frame's own length, which mp4 guesses
    expected = [max(k for k, t in enumerate(times) if t / 1000 <= i * length / 8 + 1e-3) for i in range(8)]
    assert expected != UNIFORM
    assert numbers(clip) == list(clip.indices) == expected
    assert clip.timestamps == pytest.approx([times[k] / 1000 for k in expected], abs=2e-3)
    # A processor's idea of time, index / fps, is right to half a tick all the same.
    about = clip.metadata()
    assert [i / about["fps"] for i in about["frames_indices"]] == pytest.approx(
        clip.timestamps, abs=0.51 / clip.fps
    )
    assert numbers(load_clip(path, backend=backend)) == list(range(COUNT))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clock_that_does_not_begin_at_zero(folder, backend):
    path = video(folder, "late.mkv", times=[5000 + 40 * i for i in range(COUNT)])
    clip = load_clip(path, frames=8, backend=backend)
    assert numbers(clip) == UNIFORM and clip.timestamps == pytest.approx([i / 25 for i in UNIFORM], abs=1e-3)
    assert clip.duration == pytest.approx(3.88, abs=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_frame_and_fewer_than_asked(folder, backend):
    clip = load_clip(video(folder, "one.mp4", count=1), frames=8, backend=backend)
    assert numbers(clip) == [0] and clip.timestamps == (0.0,) and clip.total == 1
    assert numbers(load_clip(video(folder, "one.mp4", count=1), fps=0.1, backend=backend)) == [0]
    assert numbers(load_clip(video(folder, "five.mkv", count=5), frames=8, backend=backend)) == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_upright(folder, backend):
    clip = load_clip(turn(video(folder, "h264.mp4")), frames=4, backend=backend)
    assert clip.frames.shape == (4, WIDTH, HEIGHT, 3)
    back = [np.rot90(frame) for frame in clip.frames]  # anticlockwise
    assert [int(back[1][:, 20 * b + 5 : 20 * b + 15].mean() > 127) << b for b in range(8)] == [
        24 & (1 << b) for b in range(8)
    ]


def test_sparse_and_dense_key_frames(folder):
    """Seeking to a key frame and decoding from the beginning show the same frames."""
    open_groups = {"x264-params": "open-gop=1"}  # key frames that frames shown before them refer to
    for name, key, options in (("k5.mp4", 5, {}), ("k300.mp4", 300, {}), ("open.mkv", 12, open_groups)):
        path = video(folder, name, key=key, options=options)
        for asked in ([96], [0, 50], [4, 5, 6, 95], list(range(3, 97, 7))):
            assert numbers(load_clip(path, indices=asked)) == asked


def test_size(folder):
    path = video(folder, "h264.mp4")
    assert load_clip(path, frames=1, size=80).frames.shape == (1, 48, 80, 3)
    assert load_clip(path, frames=1, size=(1000, 24)).frames.shape == (1, 24, 40, 3)
    assert load_clip(path, frames=1, size=1000).frames.shape == (1, HEIGHT, WIDTH, 3)  # never enlarged
    small = load_clip(path, frames=8, size=80)
    assert numbers(small) == UNIFORM


def test_in_this_process_it_is_the_same(folder):
    path = video(folder, "h264.mp4")
    here, there = load_clip(path, frames=8, timeout=None), load_clip(path, frames=8)
    assert np.array_equal(here.frames, there.frames) and here.timestamps == there.timestamps


def test_no_log_of_ffmpeg_goes_to_python_while_it_decodes(folder):
    """torchvision switches it on, and a decoder that closes then waits for threads that wait for the GIL."""
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    load_clip(video(folder, "h264.mp4"), frames=2, timeout=None)
    assert av.logging.get_level() is None


@pytest.mark.parametrize(
    ("name", "codec"), [("h264.mkv", "libx264"), ("vp9.webm", "libvpx-vp9"), ("fast.mp4", "libx264")]
)
def test_truncated_repeats_the_last_good_frame_and_counts(folder, name, codec):
    whole = video(folder, name, codec, **({"movflags": "faststart"} if name == "fast.mp4" else {}))
    path = cut(whole, 0.6)
    everything = load_clip(path, backend="pyav")
    shown = list(everything.indices)
    whole = [i for i, number in enumerate(shown) if number == i]
    last = whole[-1]
    assert (
        20 < last < 90
        and everything.total == len(shown) == COUNT
        and everything.missing == COUNT - len(whole)
    )
    assert len(whole) >= last - 1  # of the group that is cut, frames that others are made from come first
    assert shown == [max(j for j in whole if j <= i) for i in range(COUNT)]
    assert numbers(everything) == shown
    assert everything.timestamps == pytest.approx([i / 25 for i in shown], abs=1e-3)
    clip = load_clip(path, frames=8, backend="pyav")
    assert numbers(clip) == list(clip.indices) == [shown[i] for i in UNIFORM]
    assert clip.missing == sum(shown[i] != i for i in UNIFORM) > 0
    assert numbers(load_clip(path, indices=[96], backend="pyav")) == [last]


@pytest.mark.parametrize("backend", BACKENDS)
def test_truncated_is_never_wrong_by_any_decoder(folder, backend):
    path = cut(video(folder, "h264.mkv"), 0.6)
    clip = load_clip(path, frames=8, backend=backend)
    assert numbers(clip) == list(clip.indices) and len(clip.frames) == 8


@pytest.mark.parametrize(
    ("codec", "share"), [("libx264", 0.35), ("libx264", 0.5), ("mpeg4", 0.35), ("mpeg4", 0.5)]
)
def test_a_damaged_middle(folder, codec, share):
    """Noise over a stretch of the file: every frame shown is what it says it is, and the rest is counted."""
    data = bytearray(video(folder, f"{codec}.mp4", codec).read_bytes())
    at = int(len(data) * share)
    data[at : at + 300] = np.random.default_rng(0).bytes(300)
    path = folder / f"noise_{codec}.mp4"
    path.write_bytes(data)
    clip = load_clip(path, backend="pyav")
    lost = [i for i, shown in enumerate(clip.indices) if shown != i]
    assert 1 < len(lost) == clip.missing < 30 and clip.total == COUNT
    assert lost[0] > 20 and lost[-1] < 90
    assert numbers(clip) == list(clip.indices)


def playlist(folder):
    path = folder / "playlist.mp4"
    path.write_text(f"#EXTM3U\n#EXTINF:4,\n{video(folder, 'h264.mp4')}\n#EXT-X-ENDLIST\n")
    return path


def sound(folder):
    av = pytest.importorskip("av")
    path = folder / "sound.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            file.mux(packet)
    return path


def frameless(folder):
    """A header that announces a video, and nothing behind it."""
    av = pytest.importorskip("av")
    with av.open(str(folder / "frameless.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        file.start_encoding()
    return folder / "frameless.avi"


def header_alone(folder):
    whole = video(folder, "h264.mkv").read_bytes()
    path = folder / "header.mkv"
    path.write_bytes(whole[: whole.index(bytes.fromhex("1f43b675"))])  # up to the first cluster of frames
    return path


def no_index(folder):
    return cut(video(folder, "h264.mp4"), 0.6)  # an mp4's index is at its end


def written(name, data):
    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def waves(folder):
    with wave.open(str(folder / "waves.mp4"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 800)
    return folder / "waves.mp4"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (written("empty.mp4", b""), "empty.mp4: an empty file"),
        (written("text.mp4", b"no video at all"), "text.mp4: not a video"),
        (
            written("noise.mp4", struct.pack(">I", 24) + b"ftypmp42" + bytes(range(256)) * 40),
            "noise.mp4: corrupt",
        ),
        (written("noise.webm", b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 40), "noise.webm: corrupt"),
        (written("photo.png", b"\x89PNG"), "photo.png: is a picture"),
        (waves, "waves.mp4: not a video"),
        (playlist, "playlist.mp4: not a video"),  # it would make a decoder open other files
        (sound, "sound.mkv: holds no video"),
        (frameless, "frameless.avi: holds no frames"),
        (header_alone, "header.mkv: corrupt, cut short"),
        (no_index, "cut_h264.mp4: corrupt, cut short"),
    ],
)
def test_bad_files_name_themselves(folder, make, message):
    with pytest.raises(InputError, match=message):
        load_clip(make(folder), frames=4)
    assert numbers(load_clip(video(folder, "h264.mp4"), frames=8)) == UNIFORM  # and the next clip is read


def test_missing_file():
    with pytest.raises(InputError, match=r"nowhere/clip.mp4: no such file"):
        load_clip("nowhere/clip.mp4")


def test_limits(folder):
    path = video(folder, "h264.mp4")
    with pytest.raises(InputError, match="h264.mp4.*max_seconds"):
        load_clip(path, max_seconds=2.0)
    with pytest.raises(InputError, match="h264.mp4.*15,360 pixels"):
        load_clip(path, max_pixels=1000)
    with pytest.raises(InputError, match="max_frames=10"):
        load_clip(path, frames=11, max_frames=10)
    assert numbers(load_clip(path, max_frames=8)) == UNIFORM
    assert len(load_clip(path, fps=25.0, max_frames=10).frames) == 10


def test_all_frames_together_have_a_limit(folder, monkeypatch):
    from tokenprune.media import reading

    monkeypatch.setattr(reading, "MAX_CLIP_PIXELS", 20_000)
    with pytest.raises(InputError, match="h264.mp4: 8 frames.*size="):
        load_clip(video(folder, "h264.mp4"), frames=8, timeout=None)
    assert len(load_clip(video(folder, "h264.mp4"), frames=8, size=40, timeout=None).frames) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames"),
        ({"fps": -1.0}, "fps"),
        ({"frames": 2, "fps": 1.0}, "one of frames, fps and indices"),
        ({"indices": [97]}, "h264.mp4: has frames 0 to 96"),
        ({"indices": [-1]}, "no frame -1"),
        ({"indices": [1.5]}, "indices"),
        ({"indices": []}, "indices"),
        ({"size": 0}, "size"),
        ({"size": (1, 2, 3)}, "size"),
        ({"timeout": 0}, "timeout"),
        ({"backend": "vhs"}, "backend='vhs'.*pyav"),
    ],
)
def test_bad_arguments(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_clip(video(folder, "h264.mp4"), **options)


def test_the_environment_chooses(folder, monkeypatch):
    monkeypatch.setenv("TOKENPRUNE_VIDEO_BACKEND", "vhs")
    with pytest.raises(InputError, match="TOKENPRUNE_VIDEO_BACKEND='vhs'"):
        load_clip(video(folder, "h264.mp4"))
    pytest.importorskip("decord")
    monkeypatch.setenv("TOKENPRUNE_VIDEO_BACKEND", "decord")
    assert load_clip(video(folder, "h264.mp4"), frames=2).backend == "decord"
    assert load_clip(video(folder, "h264.mp4"), frames=2, backend="pyav").backend == "pyav"


def test_without_a_decoder_the_extra_is_named(folder, monkeypatch):
    from tokenprune.media import readers

    for module in ("av", "decord", "torchcodec"):
        monkeypatch.setitem(sys.modules, module, None)
    for backend in ("pyav", "decord", "torchcodec"):
        monkeypatch.delitem(sys.modules, f"tokenprune.media.readers.{backend}", raising=False)
        monkeypatch.delattr(readers, backend, raising=False)
    for backend in (None, "pyav", "decord", "torchcodec"):
        with pytest.raises(MissingExtraError, match=r"pip install 'tokenprune-vlm\[video\]'"):
            load_clip(video(folder, "h264.mp4"), backend=backend, timeout=None)


def test_nothing_heavy_is_imported_by_the_decoding_process():
    """Torch would take it seconds and hundreds of megabytes; a decoder is imported where it decodes."""
    from tokenprune.media import child

    code = (
        "import json, sys, types; package = types.ModuleType('tokenprune'); package.__path__ = [sys.argv[1]];"
        "sys.modules['tokenprune'] = package; import tokenprune.media.worker, tokenprune.media.readers;"
        "print(json.dumps([m for m in ('torch', 'transformers', 'av', 'decord') if m in sys.modules]))"
    )
    package = Path(child.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
