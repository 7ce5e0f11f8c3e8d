"""How fast the demo answers first, and what it holds after many requests: `python tools/demo_load.py --requests 200`.

Starts `tokenprune demo` as a process of its own and uses it through its HTTP API, as gradio_client does. Prints JSON:
seconds from the start of the process to the first whole answer (wall and CPU), and the process's memory (proportional
set size, in MiB) after 20 requests and after all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURES = sorted((ROOT / "tokenprune" / "zoo" / "examples").glob("*.png"))
FIRST = 20
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    print(json.dumps(measure(parser.parse_args().requests), indent=1))


def measure(requests: int) -> dict[str, Any]:
    """Start the app, ask it `requests` times, and stop it again."""
    load, start = os.getloadavg()[0], time.monotonic()
    command = [sys.executable, "-m", "tokenprune.cli", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            client, url = _connect(server)
            ready = time.monotonic() - start
            ask(client, 0)
            out = {
                "listening_s": round(ready, 1),
                "first_answer_s": round(time.monotonic() - start, 1),
                "first_answer_cpu_s": round(cpu_seconds(server.pid), 1),
                "load_before": round(load, 1),
                "load_after": round(os.getloadavg()[0], 1),
                "url": url,
            }
            for number in range(1, requests):
                ask(client, number)
                if number + 1 == min(FIRST, requests):
                    out["memory_mib_after_20"] = round(memory(server.pid), 1)
            out["memory_mib_after_all"] = round(memory(server.pid), 1)
            out["ratio"] = round(out["memory_mib_after_all"] / out["memory_mib_after_20"], 3)
            out["requests"] = requests
            return out
        finally:
            server.terminate()


def _connect(server: subprocess.Popen[str]) -> tuple[Any, str]:
    assert server.stdout is not None
    for line in server.stdout:
        found = re.search(r"http://\S+", line)
        if found:
            from gradio_client import Client

            return Client(found[0], verbose=False), found[0]
    raise SystemExit("the app ended before it was ready")


def ask(client: Any, number: int) -> str:
    """One comparison of two methods about one of the bundled pictures; returns the status line."""
    from gradio_client import handle_file

    picture = handle_file(str(PICTURES[number % len(PICTURES)]))
    found = client.predict(
        "tiny-llava", "picture", picture, None, 16, "what colour is the star?", 16, 2, False, "flashvlm", 25,
        "visionzip", 11.1, "random", 25, "pool", 25, api_name="/compare",
    )  # fmt: skip
    line = str(found[0])
    if "say the same" not in line:
        raise SystemExit(f"request {number}: {line}")
    return line


def memory(pid: int) -> float:
    """Proportional set size of a process, in MiB; its resident size where the system tells no other."""
    for file, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = Path(f"/proc/{pid}/{file}").read_text()
        except OSError:
            continue
        return int(re.search(rf"^{key}\s+(\d+)", text, re.M)[1]) / 1024  # type: ignore[index]
    raise SystemExit("this system has no /proc to read memory from")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


if __name__ == "__main__":
    main()
