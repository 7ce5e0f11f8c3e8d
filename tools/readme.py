"""Fill the marked blocks of README.md from the registry and results/*.json: `python tools/readme.py [--check]`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tokenprune import list_methods
from tokenprune.eval.report import grid, interval_text, percent
from tokenprune.methods import get_method, method_class

ROOT = Path(__file__).resolve().parents[1]
MARK = {True: "✓", False: "✗", None: "–"}


def methods() -> str:
    lines = ["| method | what it keeps | needs |", "|---|---|---|"]
    for name in list_methods():
        needs = ", ".join(f"`{n}`" for n in sorted(get_method(name).needs)) or "nothing"
        lines.append(f"| `{name}` | {method_class(name).describe()} | {needs} |")
    return "\n".join(lines)


def accuracy() -> str:
    """Scores of the committed run, and the paired differences from the unpruned model with their intervals."""
    data = json.loads((ROOT / "results/scenes.json").read_text())
    rows = {(r["label"], r["keep"]): r for r in data["rows"]}
    plain, blind = (interval_text(rows[name, None]["score"]) for name in ("none", "blind"))
    suite, model = data["suite"], data["model"]
    head = (
        f"Exact answers of `{model['name']}` {model['version']}, trained without any token reduction, to "
        f"{suite['samples']} questions about drawn scenes it never saw, in points: unpruned **{plain}**, and {blind} "
        "`blind`, from the question only. Each cell is a method's score, then how far it is from the unpruned model on "
        "the same questions, with the 95 % interval of a paired bootstrap over pictures. Columns are equal *equivalent "
        "tokens*, the average over decoder layers. `random` is the mean of three draws, `resize` a smaller picture. "
        "Repeat with `tokenprune eval scenes`, which also writes kinds of question, tests, costs and plots."
    )
    return head + "\n\n" + grid(data, _score_and_difference)


def _score_and_difference(row: dict) -> str:
    return f"**{percent(row['score']['value'])}** {interval_text(row['difference'], signed=True)}"


def cost() -> str:
    files = [ROOT / "results" / name for name in ("bench.json", "bench_kernels.json")]
    found = [line for file in files if file.is_file() for line in json.loads(file.read_text())["lines"]]
    lines = ["| size | what | against | median ratio | goal | |", "|---|---|---|---|---|---|"]
    for row in found:
        if row["goal"] is None:
            continue
        value = f"{row['ratio']['median']:.3f}" if row["ratio"] else f"{row['ops'] - row['base_ops']:+d} ops"
        goal = f"{row['goal']:g}" if row["ratio"] else f"+{row['goal']:g}"
        lines.append(
            f"| {row['size']} | {row['what']} | {row['base']} | {value} | {goal} | {row['verdict']} |"
        )
    return "\n".join(lines)


def support() -> str:
    data = json.loads((ROOT / "results/support.json").read_text())
    names = sorted({b for cells in data["families"].values() for b in cells}, key=lambda b: int(b.split()[0]))
    titles = [b.split(maxsplit=1)[1] for b in names]
    lines = ["| family | " + " | ".join(titles) + " |", "|---" * (len(names) + 1) + "|"]
    for family, cells in data["families"].items():
        lines.append(f"| {family} | " + " | ".join(MARK[cells.get(b)] for b in names) + " |")
    version = data["versions"]["transformers"]
    head = f"Each cell is a test that passed on a random model of the family (transformers {version}).\n\n"
    return head + "\n".join(lines)


def fill(text: str) -> str:
    """The README with every block made anew."""
    for name, make in (("methods", methods), ("accuracy", accuracy), ("cost", cost), ("support", support)):
        block = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.S)
    return text


def main() -> None:
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = fill(old)
    if "--check" in sys.argv:
        sys.exit("README.md is stale: run `python tools/readme.py`" if new != old else 0)
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
