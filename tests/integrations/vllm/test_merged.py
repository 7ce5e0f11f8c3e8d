"""Merged tokens and DeepStack levels in vLLM against `patch_model` on Hugging Face: the same method in both worlds."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm")

import torch

from tokenprune import patch_model

from .cases import IMAGES
from .test_equivalence import CACHE, STEPS, ask, compare, folder, reference

__all__ = ["folder"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_deepstack_levels_are_merged_as_patch_model_merges_them(folder, tmp_path):
    name, settings = "qwen3_vl", {"method": "pool", "keep": 0.4}
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
    found = ask(name, folder(name), tmp_path, CACHE, settings)
    compare(found, wanted, [case.name for case in IMAGES])
