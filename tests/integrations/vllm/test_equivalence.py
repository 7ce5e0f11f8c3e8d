"""vLLM with the plug-in against Hugging Face with the dropped tokens hidden: `make test-vllm`.

Every case alone, together with all others, and again, in engines with and without a prefix cache and with prompts cut
into chunks of 32: the same greedy tokens, and log-probabilities within 1e-4 in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

pytest.importorskip("vllm")

from tokenprune.integrations.vllm.settings import Settings

from . import checkpoints, engine
from .cases import CLIPS, IMAGES, Case
from .reference import Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 8
NO_CACHE = {"enforce_eager": True, "enable_prefix_caching": False}
CACHE = {"enforce_eager": True, "enable_prefix_caching": True}
CHUNKS = {**CACHE, "max_num_batched_tokens": 32}
COMPILED = {"enforce_eager": False, "enable_prefix_caching": True}

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


def cases_of(name: str) -> list[Case]:
    return IMAGES + (CLIPS if name != "llava" else CLIPS[-1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made: dict[str, Any] = {}

    def of(name: str):
        if name not in made:
            made[name] = checkpoints.save(name, tmp_path_factory.mktemp(name))
        return made[name]

    return of


@functools.cache
def reference(name: str) -> Reference:
    return Reference(name, checkpoints.build(name))


@functools.cache
def expected(name: str, settings: str, kept: str = "as asked") -> list[dict[str, Any]]:
    wanted = Settings.read(eval(settings))
    return [reference(name).answers(case, wanted, STEPS) for case in cases_of(name)]


def ask(name: str, model: Any, place: Any, options: dict[str, Any], settings: dict[str, Any], **more: Any):
    cases = [
        {"ids": reference(name).ids(case), "parts": case.parts, "kwargs": case.kwargs}
        for case in cases_of(name)
    ]
    return engine.answers(
        place, model=str(model), architecture=ARCHITECTURES[name], tokenprune=settings, options=options,
        cases=cases, steps=STEPS, **more,
    )  # fmt: skip


def compare(found: dict[str, Any], wanted: list[dict[str, Any]], names: list[str]) -> None:
    wrong = []
    for name in engine.PASSES:
        for case, got, want in zip(names, found[name], wanted):
            gap = max(abs(a - b) for a, b in zip(got["logprobs"], want["logprobs"]))
            if got["prompt"] != want["prompt"] or got["tokens"] != want["tokens"] or gap > 1e-4:
                wrong.append(f"{name}, {case}: {got} instead of {want}, gap {gap:.1e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("name", "options"), [
    pytest.param("qwen2_5_vl", NO_CACHE, id="qwen2_5_vl-no cache"),
    pytest.param("qwen2_5_vl", CHUNKS, id="qwen2_5_vl-cache, 32-token chunks"),
    pytest.param("qwen2_5_vl", COMPILED, id="qwen2_5_vl-compiled"),
    pytest.param("qwen3_vl", NO_CACHE, id="qwen3_vl-no cache"),
    pytest.param("qwen3_vl", CHUNKS, id="qwen3_vl-cache, 32-token chunks"),
    pytest.param("llava", NO_CACHE, id="llava-no cache"),
    pytest.param("llava", CHUNKS, id="llava-cache, 32-token chunks"),
    pytest.param("internvl", NO_CACHE, id="internvl-no cache"),
    pytest.param("internvl", CHUNKS, id="internvl-cache, 32-token chunks"),
])  # fmt: skip
def test_the_same_answers_as_hugging_face(name, options, folder, tmp_path):
    found = ask(name, folder(name), tmp_path, options, SETTINGS[name])
    wanted = expected(name, repr(SETTINGS[name]))
    compare(found, wanted, [case.name for case in cases_of(name)])
    cached = sum(answer["cached"] for answer in found["again"])
    assert (cached > 0) == options["enable_prefix_caching"], "the cache was, or was not, at work"
    whole = expected(name, repr({"method": "uniform", "keep": 1.0}))
    differ = [w["tokens"] != f["tokens"] for w, f in zip(wanted, whole)]
    assert sum(differ) >= len(differ) // 2, "and pruned prompts are told from whole ones"


@pytest.mark.parametrize("method", ["test_halves", "test_raises"])
def test_a_faulty_method_leaves_the_engine_answering(method, folder, tmp_path):
    from . import faulty

    assert faulty.Halves.name  # registered here, for the reference
    settings = {"method": method, "keep": 0.4}
    found = ask(
        "llava", folder("llava"), tmp_path, CACHE, settings, modules=["tests.integrations.vllm.faulty"]
    )
    compare(found, expected("llava", repr(settings)), [case.name for case in cases_of("llava")])
    said = {"test_halves": "mended. Said once", "test_raises": "`uniform` chooses where it does. Said once"}
    assert found["log"].count(said[method]) == 1
    if method == "test_raises":
        assert [a["tokens"] for a in found["alone"]] == [
            a["tokens"] for a in expected("llava", repr({"method": "uniform", "keep": 0.4}))
        ]


@pytest.mark.parametrize(("settings", "words"), [
    ({"method": "fastv", "keep": 0.4}, "inside the language model"),
    ({"method": "visionzip", "keep": 0.4}, "do not show"),
    ({"keep": 0.4}, "no method for image"),
])  # fmt: skip
def test_what_cannot_serve_is_refused_at_start(settings, words, folder, tmp_path):
    with pytest.raises(AssertionError, match=words):
        ask("llava", folder("llava"), tmp_path, CACHE, settings)
