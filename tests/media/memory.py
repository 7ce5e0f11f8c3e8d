"""Resident memory while 200 clips, the files of a folder in turn, are read.

    python memory.py PACKAGE FOLDER BACKEND [CLIPS]

A script of its own, so that nothing but the reading weighs: in the tests' process torch would hide a leak, and
so would an encoder. CLIPS is how many clips one decoding process serves, the package's own number without it.
"""

import gc
import json
import sys
import types
from pathlib import Path

package = types.ModuleType("tokenprune")
package.__path__ = [sys.argv[1]]
sys.modules["tokenprune"] = package

from tokenprune.media import child, load_clip  # noqa: E402


def resident(pid) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no memory of {pid}")


def measured() -> int:
    gc.collect()
    return resident("self") + (resident(child._child.pid) if child._child.pid else 0)


def main() -> None:
    folder, backend = Path(sys.argv[2]), sys.argv[3]
    if len(sys.argv) > 4:
        child._child = child.Child(clips=int(sys.argv[4]))
    files = sorted(folder.iterdir())
    after = {}
    for number in range(1, 201):
        clip = load_clip(files[number % len(files)], frames=(4, 8, 16)[number % 3], backend=backend)
        assert len(clip.frames) >= 4
        del clip
        if number % 20 == 0:
            after[number] = measured()
    print(
        json.dumps(
            {"clips": 200, "after_20": after[20], "after_200": after[200], "every_20": list(after.values())}
        )
    )


main()
