"""Every engine of the suite: model, settings, options and cases."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tokenprune.integrations.vllm.settings import Settings

from . import checkpoints, faulty
from .cases import CLIPS, IMAGES, Case
from .reference import Reference

STEPS = 8
NO_CACHE = {"enforce_eager": True, "enable_prefix_caching": False}
CACHE = {"enforce_eager": True, "enable_prefix_caching": True}
CHUNKS = {**CACHE, "max_num_batched_tokens": 32}
COMPILED = {"enforce_eager": False, "enable_prefix_caching": True}
BUNDLED = Path(checkpoints.__file__).parents[3] / "tokenprune" / "zoo"

ARCHITECTURES = {
    "qwen2_5_vl": "TokenPruneQwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "TokenPruneQwen3VLForConditionalGeneration",
    "llava": "TokenPruneLlavaForConditionalGeneration",
    "internvl": "TokenPruneInternVLForConditionalGeneration",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"method": "divprune", "keep": 0.4, "video": {"method": "evs", "keep": 0.3}},
    "qwen3_vl": {"method": "divprune", "keep": 0.4, "video": {"method": "vidcom2", "keep": 0.3}},
    "llava": {"method": "instance", "seeds": "fps", "keep": 0.4},  # merged rows
    "internvl": {"method": "divprune", "keep": 0.4, "video": {"method": "progressive", "keep": 0.3}},
}
EQUAL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # family, settings, options
    **{f"{name}, no cache": (name, SETTINGS[name], NO_CACHE) for name in ARCHITECTURES},
    **{f"{name}, cache and chunks of 32": (name, SETTINGS[name], CHUNKS) for name in ARCHITECTURES},
    "qwen2_5_vl, compiled": ("qwen2_5_vl", SETTINGS["qwen2_5_vl"], COMPILED),
    "qwen3_vl, random": ("qwen3_vl", {"method": "random", "keep": 0.3}, CACHE),
    "tiny-llava, bundled": ("tiny-llava", {"method": "divprune", "keep": 0.25}, CACHE),
    "llava, a method that halves": ("llava", {"method": "test_halves", "keep": 0.4}, CACHE),
    "llava, a method that raises": ("llava", {"method": "test_raises", "keep": 0.4}, CACHE),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {  # family, settings, words of the reason
    "fastv": ("llava", {"method": "fastv", "keep": 0.4}, "inside the language model"),
    "visionzip": ("qwen2_5_vl", {"method": "visionzip", "keep": 0.4}, "do not show"),
    "flashvlm": ("qwen3_vl", {"method": "flashvlm", "keep": 0.4}, "depends on the question"),
    "nothing": ("internvl", {"keep": 0.4}, "no method for image"),
}
MERGED = ("qwen3_vl", {"method": "pool", "keep": 0.4}, CACHE)


def cases_of(name: str) -> list[Case]:
    """The family's cases."""
    return IMAGES + (CLIPS[-1:] if name.endswith("llava") else CLIPS)


@functools.cache
def reference(name: str) -> Reference:
    """Hugging Face's side of a family."""
    if name != "tiny-llava":
        return Reference(name, checkpoints.build(name))
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = BUNDLED / "tiny_llava"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    return Reference("llava", model, AutoProcessor.from_pretrained(folder))


@functools.cache
def _expected(name: str, settings: str) -> list[dict[str, Any]]:
    faulty.make_known()
    wanted = Settings.read(json.loads(settings))
    return [reference(name).answers(case, wanted, STEPS) for case in cases_of(name)]


def expected(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What Hugging Face answers to a family's cases."""
    return _expected(name, json.dumps(settings))


def job(name: str, settings: dict[str, Any], options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As `engine` reads it."""
    cases = [{"ids": reference(name).ids(c), "parts": c.parts, "kwargs": c.kwargs} for c in cases_of(name)]
    return {
        "model": str(folder),
        "architecture": ARCHITECTURES[name.removeprefix("tiny-")],
        "tokenprune": settings,
        "options": options,
        "cases": cases,
        "steps": STEPS,
    }


def all_jobs(root: Path) -> dict[str, dict[str, Any]]:
    """Every engine by name; writes the checkpoints."""
    folders = {name: checkpoints.save(name, root / name) for name in ARCHITECTURES}
    folders["tiny-llava"] = BUNDLED / "tiny_llava"
    jobs = {key: job(*values, folders[values[0]]) for key, values in EQUAL.items()}
    jobs["merged"] = job(*MERGED, folders[MERGED[0]])
    for key, (name, settings, _) in REFUSED.items():
        jobs[f"refused {key}"] = job(name, settings, CACHE, folders[name])
    whole = job("qwen2_5_vl", SETTINGS["qwen2_5_vl"], CACHE, BUNDLED / "tiny_qwen")
    return {**jobs, "tiny-qwen, bundled": {**whole, "cases": whole["cases"][:1]}}
