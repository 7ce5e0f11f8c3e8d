"""The rules of the house, checked on the source: who may import whom, how long a file is, what no file does."""

from __future__ import annotations

import ast
import functools
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenprune

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tokenprune"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A room is a file or folder of tokenprune/. Each may import those named here and itself, so imports go downwards
# only; a new room gets a line.
BOTTOM = {"errors", "budget", "flops", "tokens", "recipe"}
BESIDE = {"media", "viz", "zoo"}
ENGINE = BOTTOM | {"kernels", "methods", "families", "hooks", "towers", "patching"}
MAY_IMPORT = {
    "errors": set(),
    "budget": {"errors"},
    "flops": {"errors"},
    "tokens": {"errors"},
    "recipe": {"errors", "budget"},
    "kernels": BOTTOM,
    "methods": BOTTOM | {"kernels"},
    "families": BOTTOM,
    "hooks": BOTTOM | {"families", "kernels"},
    "towers": BOTTOM | {"kernels", "hooks"},
    "patching": ENGINE,
    "explain": ENGINE,
    "media": BOTTOM,
    "viz": BOTTOM | {"media"},
    "zoo": BOTTOM | {"media"},
    "chat": BOTTOM | {"families", "media", "zoo"},
    "bench": ENGINE | BESIDE | {"retrieval"},
    "calibrate": ENGINE | BESIDE | {"bench", "chat", "eval"},
    "eval": ENGINE | BESIDE | {"bench", "chat"},
    "compare": ENGINE | BESIDE | {"bench", "chat", "eval"},
    "retrieval": BOTTOM | BESIDE | {"kernels", "methods", "towers"},
    "integrations": ENGINE | BESIDE | {"chat", "eval"},
    "demo": ENGINE | BESIDE | {"chat", "explain", "bench", "calibrate", "compare", "eval", "retrieval"},
    "cli": ENGINE | BESIDE | {"chat", "explain", "bench", "calibrate", "compare", "demo", "eval", "retrieval"},
    "__init__": ENGINE,
    "__main__": {"cli"},
}
KNOWS_NOTHING_OF_MODELS = BOTTOM | {"kernels", "methods", "viz"}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file of the package imports, wherever in the file."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def wrong_imports(path: Path) -> list[str]:
    home = room(path)
    allowed = MAY_IMPORT.get(home, set()) | {home}
    found = []
    for line, target in imports(path):
        parts = target.split(".")
        if parts[0] == "tokenprune":
            there = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "patching"  # a public name
            if there not in allowed:
                found.append(f"{name(path)}:{line} ({home}) imports {target}")
        elif parts[0] == "transformers" and home in KNOWS_NOTHING_OF_MODELS:
            found.append(f"{name(path)}:{line} ({home}) imports {target}")
    return found


def calls(function: str, path: Path) -> list[str]:
    return [
        f"{name(path)}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
    ]


def test_every_room_has_its_line():
    assert {room(path) for path in SOURCES} <= set(MAY_IMPORT)


def test_imports_go_downwards_only():
    assert [wrong for path in SOURCES for wrong in wrong_imports(path)] == []


def test_the_table_itself_has_no_circle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        ready = [
            home for home, below in MAY_IMPORT.items() if home not in order and below - {home} <= set(order)
        ]
        assert ready, f"a circle among {sorted(set(MAY_IMPORT) - set(order))}"
        order += ready


@pytest.mark.parametrize(("home", "line"), [
    ("methods", "from ..hooks import layout"),
    ("methods", "from transformers import cache_utils"),
    ("kernels", "import tokenprune.methods.base"),
    ("hooks", "from ..methods.base import Reducer"),
    ("families", "def f():\n    from ..methods import register"),
    ("viz", "from .. import patching"),
    ("methods", "from tokenprune import patch_model"),
])  # fmt: skip
def test_a_wrong_import_is_seen(home, line, tmp_path, monkeypatch):
    path = tmp_path / "tokenprune" / home / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "tokenprune")
    assert len(wrong_imports(path)) == 1


def test_attention_weights_are_never_requested():
    asked = [
        f"{name(path)}:{keyword.value.lineno}"
        for path in SOURCES
        for keyword in ast.walk(tree(path))
        if isinstance(keyword, ast.keyword)
        and keyword.arg == "output_attentions"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
    ]
    assert asked == []


def test_only_the_command_line_prints():
    assert [place for path in SOURCES if room(path) != "cli" for place in calls("print", path)] == []


def test_files_are_at_most_400_lines():
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES + TESTS}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_methods_are_at_most_120_lines():
    methods = [path for path in SOURCES if room(path) == "methods" and path.stem not in ("__init__", "base")]
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in methods}
    assert {path: n for path, n in lines.items() if n > 120} == {}


def python_blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)


def test_the_worked_example_of_contributing_runs(monkeypatch):
    from tokenprune.methods import base

    base.list_methods()  # load ours into the real registry, then leave that as it is
    monkeypatch.setattr(base, "_METHODS", dict(base._METHODS))
    monkeypatch.setattr(base, "_ALIASES", dict(base._ALIASES))
    method, use = python_blocks("CONTRIBUTING.md")
    assert len(method.splitlines()) < 120
    module = types.ModuleType("tokenprune.methods.contrast")
    module.__package__ = "tokenprune.methods"  # as the file it tells the reader to write
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(method, "<the method in CONTRIBUTING.md>", "exec"), module.__dict__)
    assert "contrast" in base.list_methods()
    assert base.method_class("contrast").describe().startswith("Tokens that differ most")
    exec(compile(use, "<its use in CONTRIBUTING.md>", "exec"), {})


def test_readme_names_the_commands_that_run_and_test():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make run" in readme and "make test" in readme


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make test" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_constraints_are_versions_inside_the_declared_ranges():
    from packaging.requirements import Requirement

    def key(requirement: Requirement) -> str:
        return requirement.name.lower().replace("_", "-")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    ranges = {key(r): r.specifier for r in map(Requirement, declared)}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {key(r): r.specifier for r in (Requirement(x) for x in lines if x and not x.startswith("#"))}
    assert all(len(pin) == 1 and next(iter(pin)).operator == "==" for pin in pins.values())
    outside = {
        n: str(pins.get(n))
        for n, s in ranges.items()
        if n not in pins or next(iter(pins[n])).version not in s
    }
    assert outside == {}


def test_changelog_speaks_of_this_version():
    assert f"## [{tokenprune.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
