"""vLLM with the plug-in against Hugging Face with the dropped tokens hidden: `make test-vllm`.

Every case alone, together with all others, and again, in engines with and without a prefix cache and with prompts cut
into chunks of 32: the same greedy tokens, and log-probabilities within 1e-4 in float32.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm")

import torch

from tokenprune import patch_model

from . import engine
from .cases import IMAGES
from .jobs import EQUAL, MERGED, REFUSED, STEPS, cases_of, expected, reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(engine.LIMIT + 600)]


def gap_of(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest between the log-probabilities of what each chose."""
    return max(abs(a - b) for a, b in zip(one["logprobs"], other["logprobs"]))


def compare(found: dict[str, Any], wanted: list[dict[str, Any]], names: list[str]) -> None:
    wrong = []
    for name in engine.PASSES:
        for case, got, want in zip(names, found[name], wanted):
            gap = gap_of(got, want)
            if got["prompt"] != want["prompt"] or got["tokens"] != want["tokens"] or not gap <= 1e-4:
                wrong.append(f"{name}, {case}: {got} instead of {want}, gap {gap:.1e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("key", EQUAL)
def test_the_same_answers_as_hugging_face(key, engines):
    name, settings, options = EQUAL[key]
    found, wanted = engine.answers(engines, key), expected(name, settings)
    compare(found, wanted, [case.name for case in cases_of(name)])
    cached = sum(answer["cached"] for answer in found["again"])
    assert (cached > 0) == options["enable_prefix_caching"], "the cache was, or was not, at work"
    whole = expected(name, {"method": "uniform", "keep": 1.0})
    cases = [(w, f) for w, f, case in zip(wanted, whole, cases_of(name)) if case.media and not case.kwargs]
    assert all(gap_of(w, f) > 1e-3 for w, f in cases), "and pruned prompts are told from whole ones"


@pytest.mark.parametrize(("key", "words"), [
    ("llava, a method that halves", "mended. Said once"),
    ("llava, a method that raises", "`uniform` chooses where it does. Said once"),
])  # fmt: skip
def test_a_faulty_method_leaves_the_engine_answering(key, words, engines):
    found = engine.answers(engines, key)
    assert len(found["again"]) == len(cases_of("llava"))
    assert sum(words in said for said in found["said"]) == 1
    if "raises" in key:
        uniform = expected("llava", {"method": "uniform", "keep": 0.4})
        assert [a["tokens"] for a in found["alone"]] == [a["tokens"] for a in uniform]


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_serve_is_refused_at_start(key, engines):
    with pytest.raises(RuntimeError, match=REFUSED[key][2]):
        engine.answers(engines, f"refused {key}")


def test_the_bundled_tiny_qwen_is_refused_at_start(engines):
    with pytest.raises(RuntimeError, match="has 12 sections"):  # vLLM would fail at the first prompt
        engine.answers(engines, "tiny-qwen, bundled")


def test_deepstack_levels_are_merged_as_patch_model_merges_them(engines):
    name, settings, _ = MERGED
    model, wanted = reference(name).model, []
    for case in IMAGES:
        keep = case.kwargs.get("tokenprune", settings)["keep"]
        inputs = reference(name).inputs(case)
        with patch_model(model, method="pool", keep=keep) as handle:
            out = model.generate(
                **inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
            gone = handle.report.before - handle.report.after
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        told = [float(torch.log_softmax(step[0], -1)[t]) for step, t in zip(out.logits, tokens)]
        wanted.append({"tokens": tokens, "logprobs": told, "prompt": inputs["input_ids"].shape[1] - gone})
    compare(engine.answers(engines, "merged"), wanted, [case.name for case in IMAGES])
