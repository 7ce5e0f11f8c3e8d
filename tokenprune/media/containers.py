"""What kind of moving picture a file is, by its first bytes, and whether its end is missing.

Decoders guess by themselves too, but a playlist or a concat script named `.mp4` makes them open other files and
addresses; so only containers that hold their own frames get as far as a decoder.
"""

from __future__ import annotations

import struct
from pathlib import Path

from ..errors import InputError

ISO_ATOMS = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
MATROSKA = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"
READ = "mp4, mov, mkv, webm, avi, mpg, gif, animated webp"


def container_of(path: Path, label: str) -> str:
    """ "mp4" (and mov), "matroska" (and webm), "avi", "mpeg", "gif" or "webp"; `InputError` for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror})") from error
    if not head:
        raise InputError(f"{label}: an empty file")
    if head[4:8] in ISO_ATOMS:
        return "mp4"
    if head.startswith(MATROSKA):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3"):
        return "mpeg"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    raise InputError(f"{label}: not a video, or one in a container that is not read ({READ})")


def is_cut(path: Path, container: str) -> bool:
    """Whether the file ends before it says it does. Only mp4 and Matroska are asked; a live recording says nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "matroska":
            return _matroska_end(file.read(1024)) > size
        at = 0
        while container == "mp4" and at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            (length,) = struct.unpack(">I", head[:4])
            if length == 1 and len(head) == 16:
                (length,) = struct.unpack(">Q", head[8:])
            if length < 8:  # 0 means "to the end of the file"; 2 to 7 mean nothing
                break
            at += length
        return at > size


def _matroska_end(head: bytes) -> int:
    """Where the segment that holds everything ends, in bytes; 0 when it does not say."""
    try:
        size, at = _varint(head, 4)
        at += size
        if head[at : at + 4] != SEGMENT:
            return 0
        size, begin = _varint(head, at + 4)
        unknown = (1 << 7 * (begin - at - 4)) - 1
        return 0 if size == unknown else begin + size
    except IndexError:
        return 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An EBML number, whose leading zero bits say how many bytes follow, and the place after it."""
    length = 9 - data[at].bit_length()
    if length > 8 or at + length > len(data):
        raise IndexError
    value = int.from_bytes(data[at : at + length], "big")
    return value & ((1 << 7 * length) - 1), at + length
