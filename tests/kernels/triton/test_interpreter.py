"""Triton's interpreter has to be chosen before triton is first imported, so its tests get a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.4")
ROOT = Path(__file__).resolve().parents[3]
INTERPRETED = Path(__file__).with_name("interpreted.py")


@pytest.mark.slow
def test_every_kernel_equals_its_reference_under_the_interpreter():
    """float32 and half precision, random sizes, several images, boolean and additive masks; all methods end to end."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", INTERPRETED],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
