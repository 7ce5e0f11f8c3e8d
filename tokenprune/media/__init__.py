"""Pictures and clips from files, folders or memory, checked before anybody spends time on them."""

from .clips import Clip, ClipSource, find_clips, load_clip
from .pictures import FORMATS, MAX_PIXELS, SUFFIXES, VIDEO_SUFFIXES, Picture, find_pictures, load_image
from .sampling import sample_indices, sample_times

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "ClipSource",
    "Picture",
    "find_clips",
    "find_pictures",
    "load_clip",
    "load_image",
    "sample_indices",
    "sample_times",
]
