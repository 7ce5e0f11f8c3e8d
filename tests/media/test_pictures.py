"""Pictures: what is read, what is refused, and that every refusal names the file."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.errors import InputError
from tokenprune.media import find_pictures, load_image


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (6, 4), "red").save(path)
    return path


def png_header(width, height):
    """A valid PNG that claims a size and carries almost no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )


def test_path_pil_and_arrays_give_the_same_picture(red):
    expected = np.zeros((4, 6, 3), np.uint8)
    expected[..., 0] = 255
    sources = [
        red,
        str(red),
        Image.open(red),
        expected,
        expected / 255.0,
        torch.from_numpy(expected).permute(2, 0, 1),
    ]
    for source in sources:
        image = load_image(source)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), expected)


def test_grey_palette_transparent_and_sixteen_bit(tmp_path):
    assert load_image(np.full((3, 3), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert load_image(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(deep)
    assert load_image(deep).getpixel((0, 0)) == (128, 128, 128)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    assert load_image(palette).getpixel((0, 0)) == (0, 0, 255)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 2), "white")
    exif = image.getexif()
    exif[0x0112] = 6  # turned a quarter
    path = tmp_path / "phone.jpg"
    image.save(path, exif=exif)
    assert load_image(path).size == (2, 8)


def test_bomb_is_refused_from_its_header(tmp_path):
    for name, side in (("bomb.png", 60_000), ("small_bomb.png", 9_000)):
        path = tmp_path / name
        path.write_bytes(png_header(side, side))
        with pytest.raises(InputError, match=f"{name}.*64,000,000"):
            load_image(path)
    with pytest.raises(InputError, match="limit of 10"):
        load_image(Image.new("RGB", (4, 4)), max_pixels=10)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.png", b"", "not a picture"),
        ("text.png", b"hello", "not a picture"),
        ("cut.png", png_header(40, 40), "corrupt"),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("clip.mp4", b"\0\0\0\x18ftypmp42", "is a video, not a picture; .*load_clip"),
    ],
)
def test_unreadable_files_name_themselves(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        load_image(path)


def test_truncated_jpeg(tmp_path):
    path = tmp_path / "half.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="half.jpg.*corrupt"):
        load_image(path)


def test_animation_is_not_silently_cut_to_its_first_frame(tmp_path):
    path = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="moving.gif.*2 frames.*load_clip"):
        load_image(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 7), np.uint8),
        np.zeros((2,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), 200.0),
        np.full((4, 4), np.nan),
    ],
)
def test_bad_arrays(array):
    with pytest.raises(InputError, match="the array"):
        load_image(array)


def test_other_sources():
    with pytest.raises(InputError, match="int is not a path"):
        load_image(3)
    with pytest.raises(InputError, match="no such file"):
        load_image("nowhere/at/all.png")


def test_folder_in_natural_order(tmp_path):
    for name in ("b10.png", "b2.png", "A1.jpg"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert [p.name for p in find_pictures(tmp_path)] == ["A1.jpg", "b2.png", "b10.png"]
    assert find_pictures(tmp_path)[0].load().size == (2, 2)


def test_folder_without_pictures(tmp_path):
    with pytest.raises(InputError, match="no picture in this folder"):
        find_pictures(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="find_clips"):
        find_pictures(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        find_pictures(tmp_path / "gone")
