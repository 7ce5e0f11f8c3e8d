"""The wheel, as a user gets it: small, complete, and at work in a clean environment outside the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 40 * 2**20
UNREACHABLE = re.compile(
    r"failed to fetch|error sending request|dns error|connection (refused|reset|error|broken)|timed? ?out|"
    r"network is unreachable|no route to host|failed to establish|temporary failure in name resolution",
    re.I,
)


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=800, **options)


def done(result: subprocess.CompletedProcess[str]) -> str:
    """What it printed, where it succeeded."""
    assert result.returncode == 0, (
        f"{' '.join(result.args)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    )
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done(run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of a clean environment with nothing but the wheel and what it asks for, in the versions we run."""
    home = tmp_path_factory.mktemp("clean")
    done(run(sys.executable, "-m", "venv", *(["--without-pip"] if uv() else []), home / "env"))
    python = home / "env" / "bin" / "python"
    pins = home / "pins.txt"
    ours = {d.metadata["Name"]: d.version for d in distributions()}
    pins.write_text("".join(f"{n}=={v}\n" for n, v in ours.items() if n != "tokenprune-vlm" and "+" not in v))
    pip = [uv(), "pip", "install", "--python", python] if uv() else [python, "-m", "pip", "install"]
    result = run(*pip, "--constraint", pins, wheel, cwd=home, env=clean_environment())
    if result.returncode and UNREACHABLE.search(result.stderr):
        pytest.skip(f"no package index is within reach: {result.stderr.strip().splitlines()[-1]}")
    done(result)
    yield python
    shutil.rmtree(home / "env")


def uv() -> str | None:
    """uv links packages from its cache, so that installing PyTorch again takes seconds."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def clean_environment() -> dict[str, str]:
    """Ours, without what would lead back to the repository; no model can be downloaded."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")
    }
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def test_the_wheel_is_small_and_complete(wheel):
    assert wheel.name.startswith("tokenprune_vlm-")
    assert wheel.stat().st_size <= LIMIT
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    assert {n.split("/")[0].split("-")[0] for n in names} == {"tokenprune", "tokenprune_vlm"}
    assert "tokenprune/py.typed" in names
    assert not [n for n in names if re.search(r"(^tests/|/test_\w+\.py$|/conftest\.py$|__pycache__)", n)]
    assert {f"tokenprune/{name}" for name in tracked("configs")} <= names
    data = tracked("tokenprune")
    assert data <= names, f"missing: {sorted(data - names)}"
    for suffix in (".safetensors", ".json", ".jinja"):
        assert [n for n in names if n.startswith("tokenprune/zoo/") and n.endswith(suffix)], (
            f"no {suffix} in zoo/"
        )
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.10" in metadata


def tracked(folder: str) -> set[str]:
    """Every file of a folder that belongs to the project, data included."""
    git = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder, cwd=ROOT)
    if git.returncode == 0:
        return {n for n in git.stdout.splitlines() if (ROOT / n).exists()}
    found = (p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file())
    return {p.as_posix() for p in found if "__pycache__" not in p.parts}


def test_compare_runs_from_the_wheel_alone(installed, tmp_path):
    def there(*command: object) -> str:
        return done(run(*command, cwd=tmp_path, env=clean_environment()))

    where = Path(there(installed, "-c", "import tokenprune; print(tokenprune.__file__)").strip())
    assert where.is_relative_to(installed.parents[1])

    command = installed.parent / "tokenprune"
    little = ("--methods", "uniform,flashvlm", "--keep", "0.25", "--repeats", "0", "--max-new-tokens", "4")
    printed = there(command, "compare", *little)
    assert re.search(r"^method +keep +visual tokens", printed, re.M), printed
    assert re.search(r"^uniform +(0.25|25)", printed, re.M) and re.search(r"^flashvlm +", printed, re.M), (
        printed
    )

    found = json.loads((tmp_path / "out" / "compare" / "compare.json").read_text(encoding="utf-8"))
    assert found["schema"].startswith("tokenprune.compare/")
    assert {row["method"] for row in found["summary"]} >= {"none", "blind", "uniform", "flashvlm"}
    assert found["versions"]["torch"]
    assert list((tmp_path / "out" / "compare").rglob("*.png")), "no picture was written"
