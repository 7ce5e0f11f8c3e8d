"""A run of retrieval as a YAML file: which tower, which suite, how many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from ..errors import InputError, MissingExtraError, UnknownNameError, neighbours

KIND = "retrieval"


@dataclass
class RetrievalConfig:
    """The fields of a configuration file, and what `evaluate` takes."""

    suite: str | dict[str, Any]
    tower: str | dict[str, Any] = (
        "crater-vit"  # embedded, or {"timm": name} or {"open_clip": name}, with a checkpoint
    )
    counts: Sequence[int | str] = (1, 4, 16, 64, "all")
    seeds: Sequence[str] = ("attention", "attention_fps", "fps")
    shortlists: Sequence[int] = (10, 100, 500)
    staged: Sequence[int | str] = (16, 64, "all")  # counts that are also matched behind a shortlist
    match: str = "maxsim"
    batch: int = 32
    threads: int | None = None
    name: str = ""
    home: Path | None = field(default=None, repr=False)


def is_retrieval(path: Path) -> bool:
    """The file says `kind: retrieval`."""
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # whoever reads it says why
    return isinstance(body, dict) and body.get("kind") == KIND


def load_config(path: str | Path) -> RetrievalConfig:
    """Read a configuration. Raises `InputError` naming the file; an unknown setting shows its neighbours."""
    path = Path(path)
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot read this configuration ({error})") from error
    if not isinstance(body, dict) or body.get("kind") != KIND or "suite" not in body:
        raise InputError(f"{path}: a mapping with `kind: {KIND}` and `suite` is a configuration of retrieval")
    known = {f.name for f in fields(RetrievalConfig)} - {"home"}
    body.pop("kind")
    for key in body:
        if key not in known:
            raise UnknownNameError(f"{path}: no setting {key!r}; {neighbours(str(key), known)}")
    body.setdefault("name", path.stem)
    return RetrievalConfig(**body, home=path.parent)


def load_tower(about: str | dict[str, Any], home: Path | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A tower and what results say of it: the embedded one, or one of timm or open_clip.

    {"timm": "vit_base_patch16_224", "checkpoint": "weights.safetensors"}: a local file; nothing is downloaded unless
    "pretrained" says so.
    """
    from ..zoo import vit

    if about == vit.NAME:
        return vit.load_tower(), vit.info()
    if not isinstance(about, dict) or len({"timm", "open_clip"} & set(about)) != 1:
        raise InputError(f"tower {about!r}: {vit.NAME!r}, or a mapping with `timm` or `open_clip`")
    options = dict(about)
    library = "timm" if "timm" in options else "open_clip"
    name, checkpoint = str(options.pop(library)), options.pop("checkpoint", None)
    source = None if checkpoint is None else (home or Path()) / str(checkpoint)
    if source is not None and source.suffix != ".safetensors":
        raise InputError(f"{source}: a .safetensors file is read, never a pickle")
    try:
        if library == "timm":
            import timm

            tower: Any = timm.create_model(name, **options)
        else:
            import open_clip

            tower = open_clip.create_model(name, **options).visual
    except ImportError as error:
        raise MissingExtraError.of(library, "towers") from error
    if source is not None:
        from safetensors.torch import load_file

        tower.load_state_dict(load_file(str(source)))
    return tower.eval(), {"name": f"{library}/{name}", "version": None}
