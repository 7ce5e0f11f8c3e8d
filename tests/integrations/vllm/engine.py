"""Runs vLLM engines in processes of their own: `python -m tests.integrations.vllm.engine folder`.

The folder holds `NAME.job.json` for each engine: model, options and cases; the answers come as `NAME.json` beside it,
or as `NAME.error`. Each pass asks everything again: alone, all together, and alone once more (from the prefix cache
where there is one). The processes are forked from one that has imported vLLM: most of a small engine's time is that.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PASSES = ("alone", "together", "again")
LIMIT = 5400  # seconds for all engines
AT_ONCE = int(os.environ.get("VLLM_TEST_ENGINES", "2"))
BEFORE = (  # imported once, before the forks; none of it starts a thread or knows tokenprune
    "vllm.v1.engine.core", "vllm.v1.worker.cpu_model_runner", "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.interns1", "vllm.model_executor.models.llama", "vllm.model_executor.models.llava",
    "vllm.model_executor.models.qwen2_5_vl", "vllm.model_executor.models.qwen3_vl", "torch._inductor.compile_fx",
)  # fmt: skip


def run(folder: Path, jobs: dict[str, dict[str, Any]]) -> None:
    """Start the process and wait for it."""
    for name, job in jobs.items():
        (folder / f"{name}.job.json").write_text(json.dumps(job))
    with open(folder / "log", "w") as log:
        subprocess.run(
            [sys.executable, "-m", __name__, folder],
            cwd=ROOT, env=environment(), stdout=log, stderr=log, timeout=LIMIT, check=False,
        )  # fmt: skip


def environment() -> dict[str, str]:
    shim = Path(__file__).with_name("environment")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(shim), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }


def answers(folder: Path, name: str) -> dict[str, Any]:
    """{pass: [{"tokens", "logprobs", "prompt", "cached"}], "said": [warnings of ours]}, or what went wrong, raised."""
    place = folder / f"{name}.json"
    if not place.exists():
        error = folder / f"{name}.error"
        raise RuntimeError(error.read_text() if error.exists() else (folder / "log").read_text()[-6000:])
    return json.loads(place.read_text())


class Heard(logging.Filter):
    """What the plug-in's logger said; no handler, as vLLM takes those off when it sets up its own."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.said.append(record.getMessage())
        return True


def main(folder: Path) -> None:
    """All engines, so many at once, each in a fork."""
    for name in BEFORE:
        importlib.import_module(name)
    running = 0
    for place in sorted(folder.glob("*.job.json")):
        if running == AT_ONCE:
            os.wait()
            running -= 1
        if os.fork() == 0:
            write(folder, place.name.removesuffix(".job.json"))
            sys.stdout.flush()
            os._exit(0)  # threads of the engine are not waited for
        running += 1
    for _ in range(running):
        os.wait()


def write(folder: Path, name: str) -> None:
    """One engine's answers, or what it raised."""
    try:
        (folder / f"{name}.json").write_text(
            json.dumps(one(json.loads((folder / f"{name}.job.json").read_text())))
        )
    except Exception:  # read by the test that asks for the answers
        (folder / f"{name}.error").write_text(traceback.format_exc())


def one(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from vllm import LLM, SamplingParams

    from . import faulty

    # vLLM compiles small functions of its own in every mode; on a loaded machine that takes longer than the answers
    torch._dynamo.config.disable = job["options"]["enforce_eager"]

    faulty.make_known()
    heard = Heard()
    logging.getLogger("vllm.tokenprune").addFilter(heard)
    llm = LLM(
        job["model"],
        dtype="float32",
        max_model_len=512,
        max_num_seqs=8,
        block_size=32,  # the smallest it has on a CPU: prompts here are short, and only whole blocks are cached
        seed=0,
        hf_overrides={"architectures": [job["architecture"]], "tokenprune": job["tokenprune"]},
        **job["options"],
    )
    sampling = SamplingParams(temperature=0, max_tokens=job["steps"], logprobs=1, ignore_eos=True)
    prompts = [prompt_of(case) for case in job["cases"]]
    out: dict[str, Any] = {}
    for name in PASSES:
        calls = [prompts] if name == "together" else [[prompt] for prompt in prompts]
        found = [answer for call in calls for answer in llm.generate(call, sampling, use_tqdm=False)]
        out[name] = [read(answer) for answer in found]
    logging.getLogger("vllm.tokenprune").removeFilter(heard)
    return {**out, "said": heard.said}


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
