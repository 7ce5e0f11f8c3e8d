"""Fill README.md and write docs/results.md from the registry and results/: `python tools/readme.py [--check]`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tokenprune import list_methods
from tokenprune.eval.report import coverage_cell, grid, interval_text, keep_text, percent, reading, table
from tokenprune.methods import get_method, method_class

ROOT = Path(__file__).resolve().parents[1]
MARK = {True: "✓", False: "✗", None: "–"}


def methods() -> str:
    lines = ["| method | what it keeps | needs |", "|---|---|---|"]
    for name in list_methods():
        needs = ", ".join(f"`{n}`" for n in sorted(get_method(name).needs)) or "nothing"
        lines.append(f"| `{name}` | {method_class(name).describe()} | {needs} |")
    return "\n".join(lines)


SUITES = {
    "scenes": "drawn scenes",
    "scenes_qwen": "drawn scenes",
    "documents": "drawn pages",
    "clips": "drawn clips",
}
"""Files of results/ with a table each in docs/results.md, and what they ask about."""
SHOWN = (
    ("scenes", 0.25), ("scenes", 0.111), ("documents", 0.25), ("documents", 0.111), ("clips", 0.1), ("clips", 0.05),
)  # fmt: skip
"""Columns of the README's table: a file and a keep."""
Body = dict


def bodies() -> dict[str, Body]:
    files = {name: ROOT / "results" / f"{name}.json" for name in SUITES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def accuracy() -> str:
    """One line a method, a few budgets of every suite, with half the width of the score's interval."""
    data = bodies()
    columns = [(name, keep) for name, keep in SHOWN if name in data]
    rows = {name: {(r["label"], r["keep"]): r for r in data[name]["rows"]} for name in data}
    heads = [f"{name}, {keep_text(keep)}" for name, keep in columns]
    labels = dict.fromkeys(r["label"] for name, _ in columns for r in data[name]["rows"])
    lines = []
    for label in labels:
        found = [rows[name].get((label, keep)) or rows[name].get((label, None)) for name, keep in columns]
        seen = [row for row in found if row is not None and "score" in row]
        looks = [row for row in seen if row.get("sparse") is not None]
        if any(row["keep"] is not None for row in looks):
            continue  # the keep of a decode method is of its sparse layers: it belongs into no column
        if seen:
            tokens = looks[0]["tokens"] if looks else None
            more = f", reads {100 * tokens['equivalent'] / tokens['before']:.0f} %" if tokens else ""
            lines.append([f"`{label}`{more}", *map(_brief, found)])
    return table(["method", *heads], lines)


def _brief(row: dict | None) -> str:
    if row is None or "score" not in row:
        return "-" if row is not None else ""
    ends = row["score"]
    return f"{percent(ends['value'])} ± {50 * (ends['high'] - ends['low']):.0f}"


def results() -> str:
    """docs/results.md: every suite's whole table."""
    parts = [
        "# Results\n\nWritten by `python tools/readme.py` from `results/*.json`, which `tokenprune eval` wrote. Each "
        "cell is a method's score, then how far it is from the unpruned model on the same questions, with the 95 % "
        "interval of a paired bootstrap over pictures, in points. Columns are equal *equivalent tokens*, the average "
        "over decoder layers. `random` is the mean of three draws, `resize` a smaller picture, `frames` fewer frames. "
        "The models were trained without any token reduction."
    ]
    for name, body in bodies().items():
        parts += [f"## {name}", _intro(body), grid(body, _score_and_difference)]
        alone = [r for r in body["rows"] if r["keep"] is None and r["methods"] and "score" in r]
        parts += [f"`{r['label']}`: {_score_and_difference(r)}" for r in alone]
        parts += [text for make in (_reading, _kinds, _answers, _coverage) if (text := make(body))]
    return "\n\n".join([*parts, step()]) + "\n"


def step() -> str:
    """What `fixation` saves of a decode step, from the committed grid."""
    cells = json.loads((ROOT / "results/bench_fixation_grid.json").read_text())["cells"]
    heads = ["visual keys", "batch", "dense ms", "focal ms", "sparse ms", "weights ms", "dense share of the step, %",
             "attention, %: 1 focal", "3", "7", "whole step, %: 1 focal", "3", "7"]  # fmt: skip
    lines = []
    for cell in cells:
        times = [f"{cell[f'{what}_ms']:.3g}" for what in ("dense", "focal", "sparse", "linears")]
        shares = [f"{100 * cell[what][m]:.0f}" for what in ("attention", "step") for m in ("1", "3", "7")]
        lines.append(
            [str(cell["visual"]), str(cell["batch"]), *times, f"{100 * cell['dense_share']:.0f}", *shares]
        )
    return (
        "## One decode step under `fixation`\n\nOne of 28 layers of a 7B model's size, bfloat16, 300 text keys, 5 % of "
        "the visual keys in sparse layers, one CPU thread, medians of six interleaved pairs on a busy machine; dense "
        "is the fastest path that does not repeat keys and values. Attention and whole step in percent of the dense, "
        "with 1, 3 or 7 focal layers. Repeat with `tokenprune bench --only fixation-grid`.\n\n"
        + table(heads, lines, left=0)
    )


def _intro(body: Body) -> str:
    rows = {r["label"]: r for r in body["rows"] if r["keep"] is None}
    plain, blind = (interval_text(rows[name]["score"]) for name in ("none", "blind"))
    suite, model = body["suite"], body["model"]
    about = SUITES.get(suite["name"], suite["name"])
    return (
        f"`{model['name']}` {model['version']} on {suite['samples']} questions about {about} it never saw, metric "
        f"{suite['metric']}: unpruned **{plain}**, and {blind} `blind`, from the question only. Repeat with "
        f"`tokenprune eval {body['name']}`."
    )


def _reading(body: Body) -> str:
    if not any(r.get("sparse") is not None for r in body["rows"]):
        return ""
    return (
        "What is read and what is kept, % of the visual tokens: in a layer that is not focal, on layer average, in the "
        "cache. The retained share is of the unpruned score. The keep of a decode method is of its sparse "
        "layers.\n\n" + reading(body)
    )


def _kinds(body: Body) -> str:
    """The kinds of question at the second budget, where methods differ most plainly."""
    keeps = sorted({r["keep"] for r in body["rows"] if isinstance(r["keep"], float)}, reverse=True)
    rows = [r for r in body["rows"] if r.get("kinds") and r["keep"] in (None, keeps[1])]
    kinds = sorted({k for r in rows for k in r["kinds"]})
    lines = [[f"`{r['label']}`", *(percent(r["kinds"][k]["value"]) for k in kinds)] for r in rows]
    return f"Kinds of question at {keep_text(keeps[1])}, points.\n\n" + table(["method", *kinds], lines)


def _answers(body: Body) -> str:
    """The most frequent answers at the second budget, to questions with few to choose from."""
    keeps = sorted({r["keep"] for r in body["rows"] if isinstance(r["keep"], float)}, reverse=True)
    rows = [r for r in body["rows"] if r.get("answers") and r["keep"] in (None, keeps[1])]
    if not rows or body["name"] != "clips":
        return ""
    kinds = sorted({k for r in rows for k in r["answers"]})
    lines = []
    for row in rows:
        most = [sorted(row["answers"].get(k, {}).items(), key=lambda pair: -pair[1])[:4] for k in kinds]
        cells = [", ".join(f"{text or '(nothing)'} {100 * share:.0f}" for text, share in own) for own in most]
        lines.append([f"`{row['label']}`", *cells])
    return (
        f"What was answered at {keep_text(keeps[1])}, % of a kind's answers, the four most frequent.\n\n"
        + table(["method", *kinds], lines, left=1 + len(kinds))
    )


def _coverage(body: Body) -> str:
    labels = [r["label"] for r in body["rows"] if r.get("coverage")]
    if not labels:
        return ""
    return (
        "Coverage: distance (1 - cosine, x 100) of the visual tokens to the nearest one left, mean and worst.\n\n"
        + grid(body, coverage_cell, labels)
    )


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
    names = sorted({b for cells in data["families"].values() for b in cells}, key=lambda b: (int(b.split()[0]), b))
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
    page = ROOT / "docs" / "results.md"
    if "--check" in sys.argv:
        stale = new != old or page.read_text(encoding="utf-8") != results()
        sys.exit("README.md or docs/results.md is stale: run `python tools/readme.py`" if stale else 0)
    readme.write_text(new, encoding="utf-8")
    page.write_text(results(), encoding="utf-8")


if __name__ == "__main__":
    main()
