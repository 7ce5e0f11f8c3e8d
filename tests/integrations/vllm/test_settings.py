"""Counts and settings: integers and JSON, without torch or vLLM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import BudgetError, InputError
from tokenprune.integrations.vllm.settings import Settings, per_frame
from tokenprune.kernels.progress import even_counts

ROOT = Path(__file__).resolve().parents[3]
BOTH = {"method": "divprune", "keep": 0.25}


def test_a_modality_changes_what_it_names():
    settings = Settings.read({**BOTH, "method": "instance", "seeds": "fps", "video": {"keep": 0.1}})
    assert (settings.image.method, settings.image.keep, settings.image.hyper) == (
        "instance",
        0.25,
        {"seeds": "fps"},
    )
    assert (settings.video.method, settings.video.keep, settings.video.hyper) == (
        "instance",
        0.1,
        {"seeds": "fps"},
    )


def test_another_method_starts_from_its_own_defaults():
    settings = Settings.read({"method": "instance", "seeds": "fps", "keep": 0.5, "video": {"method": "evs"}})
    assert (settings.of("video").method, settings.of("video").keep, settings.of("video").hyper) == (
        "evs",
        0.5,
        {},
    )


def test_one_method_for_each_modality_needs_no_common_one():
    settings = Settings.read({"image": {"method": "divprune"}, "video": {"method": "evs", "keep": 7}})
    assert settings.image.keep == 0.25 and settings.video.num_kept((4, 3, 3)) == 7


@pytest.mark.parametrize(("value", "words"), [
    (None, "must be a JSON object"),
    ("divprune", "must be a JSON object"),
    ({"keep": 0.5}, "no method for image"),
    ({"methods": "divprune"}, "there is 'methods'"),
    ({"method": "divprune", "keep": 0}, "keep is a share"),
    ({"method": "divprune", "keep": 1.5}, "keep is a share"),
    ({"method": "divprune", "keep": True}, "keep is a share"),
    ({"method": "divprune", "video": 0.5}, "video must be a JSON object"),
    ({"method": "divprune", "seed": object()}, "plain JSON"),
    ({"method": "divprune", 3: 4}, "no text"),
])  # fmt: skip
def test_what_cannot_be_read_is_said(value, words):
    with pytest.raises((InputError, BudgetError), match=words):
        Settings.read(value)


def test_reading_leaves_the_callers_json_alone():
    value = {**BOTH, "video": {"keep": 0.1}}
    before = json.dumps(value)
    Settings.read(value)
    assert json.dumps(value) == before


@pytest.mark.parametrize(("asked", "image", "video"), [
    (None, 25, 10),
    ({"keep": 0.5}, 50, 50),
    ({"video": {"keep": 3}}, 25, 3),
    ({"keep": 0.5, "image": {"keep": 1.0}}, 100, 50),
])  # fmt: skip
def test_a_request_sets_budgets(asked, image, video):
    settings = Settings.read({**BOTH, "video": {"keep": 0.1}}).asked(asked)
    assert settings.image.num_kept((1, 10, 10)) == image
    assert settings.video.num_kept((4, 5, 5)) == video


@pytest.mark.parametrize(
    "asked", [{"method": "uniform"}, {"keep": -1}, {"keep": "a lot"}, [0.5], {"image": 0.5}]
)
def test_a_request_sets_nothing_else(asked):
    with pytest.raises((InputError, BudgetError)):
        Settings.read(BOTH).asked(asked)


def test_the_fingerprint_tells_settings_apart_and_nothing_else():
    first = Settings.read({"method": "instance", "keep": 0.25, "seeds": "fps", "beta": 0.5}).image
    same = Settings.read({"beta": 0.5, "seeds": "fps", "keep": 0.25, "method": "instance"}).image
    others = [
        {"method": "instance", "keep": 0.26, "seeds": "fps", "beta": 0.5},
        {"method": "instance", "keep": 0.25, "seeds": "grid", "beta": 0.5},
        {"method": "instance", "keep": 0.25, "seeds": "fps"},
        {"method": "uniform", "keep": 0.25},
    ]
    assert first.fingerprint() == same.fingerprint()
    assert len({first.fingerprint(), *(Settings.read(o).image.fingerprint() for o in others)}) == 5
    assert (
        Settings.read({**BOTH, "keep": 1}).image.fingerprint()
        != Settings.read({**BOTH, "keep": 1.0}).image.fingerprint()
    )


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 50), st.data())
def test_frames_share_exactly_and_evenly(t, size, data):
    kept = data.draw(st.integers(1, t * size))
    counts = per_frame((t, size, 1), kept)
    assert sum(counts) == kept and len(counts) == t
    assert max(counts) - min(counts) <= 1 and max(counts) <= size
    assert counts == even_counts(kept, t), "as `progressive` spreads its budget"


def test_counts_need_no_torch():
    code = """
import sys, types, pathlib
root = pathlib.Path(sys.argv[1])
for name in ("tokenprune", "tokenprune.integrations", "tokenprune.integrations.vllm"):
    package = types.ModuleType(name)  # without running its __init__, which is for people and imports torch
    package.__path__ = [str(root.joinpath(*name.split(".")))]
    sys.modules[name] = package
for name in ("torch", "transformers", "vllm"):
    sys.modules[name] = None  # an import of it would raise
from tokenprune.integrations.vllm.settings import Settings, per_frame
settings = Settings.read({"method": "divprune", "keep": 0.25})
assert settings.image.num_kept((1, 24, 24)) == 144 and sum(per_frame((4, 2, 2), 7)) == 7
assert len(settings.video.fingerprint()) == 16
"""
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, timeout=600)


def test_the_page_about_serving_shows_what_works():
    from tokenprune.integrations.vllm import ARCHITECTURES

    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    overrides = json.loads(re.search(r"--hf-overrides \\\n  '(.*)'", page)[1])
    assert set(overrides["architectures"]) <= set(ARCHITECTURES)
    assert Settings.read(overrides["tokenprune"]).image.num_kept((1, 24, 24)) == 144
    for block in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S):
        value = json.loads(block)
        if "method" in value:
            assert Settings.read(value).video.method == "evs"
        else:
            Settings.read(BOTH).asked(value["mm_processor_kwargs"]["tokenprune"])
    assert all(f"`{name}`" in page for name in ARCHITECTURES)
