"""The embedded vision tower of the crater suite: a plain `VisionTransformer` of timm.

from tokenprune.zoo.vit import load_tower
tower = load_tower()               # timm's own class, offline; `tower.pretrained_cfg` says how to feed it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

NAME = "crater-vit"
FOLDER = Path(__file__).parent / "crater_vit"
PATCH, GRID = 8, 14
MEAN, STD = 0.45, 0.2
CONFIG: dict[str, Any] = {
    "img_size": PATCH * GRID, "patch_size": PATCH, "embed_dim": 96, "depth": 3, "num_heads": 3, "mlp_ratio": 3.0,
    "num_classes": 0, "init_values": None,
}  # fmt: skip


def make_tower() -> VisionTransformer:
    """The tower before any training: 14 x 14 patches of 8 pixels and a class token, width 96, 3 layers."""
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise MissingExtraError.of("timm", "towers") from error
    tower = VisionTransformer(**CONFIG)
    side = PATCH * GRID
    tower.pretrained_cfg = {  # type: ignore[assignment]
        "input_size": (3, side, side), "mean": (MEAN,) * 3, "std": (STD,) * 3, "crop_pct": 1.0,
        "interpolation": "bicubic",
    }  # fmt: skip
    return tower


def _file(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise InputError(
            f"{NAME} is not part of this installation; `python -m tokenprune.zoo.train {NAME} --out DIR` trains it, "
            f"and DIR/{FOLDER.name} goes into tokenprune/zoo"
        )
    return path


def info() -> dict[str, Any]:
    """Version, recipe, date and measured figures of the trained tower."""
    return json.loads(_file("tokenprune.json").read_text(encoding="utf-8"))


def save_tower(tower: Any, folder: Path) -> None:
    """Write the weights in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half().contiguous() for name, value in tower.state_dict().items()}
    save_file(half, folder / "model.safetensors")


def load_tower() -> VisionTransformer:
    """The trained tower in float32 and evaluation mode."""
    from safetensors.torch import load_file

    tower = make_tower()
    weights = load_file(_file("model.safetensors"))
    tower.load_state_dict({name: value.float() for name, value in weights.items()})
    return tower.eval().requires_grad_(False)
