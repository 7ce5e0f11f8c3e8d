"""Runs one vLLM engine over cases in a process of its own: `python -m tests.integrations.vllm.engine job.json`.

The job names the model, the engine's options and the cases; the answers go beside it. Each pass asks everything again:
alone, all together, and alone once more (from the prefix cache where there is one).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PASSES = ("alone", "together", "again")
LIMIT = 570  # seconds


def answers(folder: Path, **job: Any) -> dict[str, Any]:
    """Start the process, wait for it, and read its answers: {pass: [{"tokens", "logprobs", "cached", "prompt"}]}."""
    place = folder / "job.json"
    place.write_text(json.dumps(job))
    result = subprocess.run(
        ["nice", "-n", "5", sys.executable, "-m", "tests.integrations.vllm.engine", place],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    out = place.with_suffix(".out")
    assert out.exists(), f"the engine failed:\n{result.stdout[-6000:]}\n{result.stderr[-6000:]}"
    return {**json.loads(out.read_text()), "log": result.stdout + result.stderr}


def environment(**more: str) -> dict[str, str]:
    shim = Path(__file__).with_name("environment")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(shim), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def main(place: Path) -> None:
    job = json.loads(place.read_text())
    for name in job.get("modules", ()):
        importlib.import_module(name)
    from vllm import LLM, SamplingParams

    llm = LLM(
        job["model"],
        dtype="float32",
        max_model_len=512,
        max_num_seqs=8,
        seed=0,
        disable_log_stats=False,
        hf_overrides={"architectures": [job["architecture"]], "tokenprune": job["tokenprune"]},
        **job["options"],
    )
    sampling = SamplingParams(temperature=0, max_tokens=job["steps"], logprobs=1, ignore_eos=True)
    prompts = [prompt_of(case) for case in job["cases"]]
    out = {}
    for name in PASSES:
        calls = [prompts] if name == "together" else [[prompt] for prompt in prompts]
        found = [answer for call in calls for answer in llm.generate(call, sampling, use_tqdm=False)]
        out[name] = [read(answer) for answer in found]
    place.with_suffix(".out").write_text(json.dumps(out))


def prompt_of(case: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image

    from .cases import FPS, drawn, is_medium

    media: dict[str, list[Any]] = {}
    for i, part in enumerate(p for p in case["parts"] if is_medium(p)):
        kind, values = drawn(part, i)
        frames = len(values)
        about = {"fps": FPS, "duration": frames / FPS, "total_num_frames": frames, "video_backend": "opencv"}
        about |= {"frames_indices": list(range(frames)), "do_sample_frames": False}
        media.setdefault(kind, []).append((values, about) if kind == "video" else Image.fromarray(values))
    prompt: dict[str, Any] = {"prompt_token_ids": case["ids"]}
    if media:
        prompt |= {"multi_modal_data": media}
    if case["kwargs"]:
        prompt |= {"mm_processor_kwargs": case["kwargs"]}
    return prompt


def read(answer: Any) -> dict[str, Any]:
    chosen = answer.outputs[0]
    return {
        "tokens": list(chosen.token_ids),
        "logprobs": [step[token].logprob for token, step in zip(chosen.token_ids, chosen.logprobs)],
        "prompt": len(answer.prompt_token_ids),
        "cached": answer.num_cached_tokens or 0,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
