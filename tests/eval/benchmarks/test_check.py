"""What is said of a dataset of another shape: the first wrong field, by name."""

from __future__ import annotations

import json

import pytest

from tests.eval.benchmarks.make import ROWS, save
from tests.eval.benchmarks.test_loading import FIRST, OPTIONS, home_of
from tokenprune.errors import InputError
from tokenprune.eval.benchmarks import check_benchmark, get_benchmark, load_benchmark


@pytest.mark.parametrize("name", FIRST)
def test_the_first_row_of_every_benchmark(tmp_path, name):
    found = check_benchmark(name, root=home_of(tmp_path, name), **OPTIONS.get(name, {}))
    assert [field for field, _, _ in found.fields] == list(get_benchmark(name).fields)
    assert found.asked.question and found.asked.answers and found.medium is not None


@pytest.mark.parametrize(("name", "change", "says"), [
    ("pope", {"answer": "maybe"}, "pope, row 0: field 'answer' is 'maybe', not yes or no"),
    ("pope", {"question": " ", "answer": "maybe"}, "field 'question' is ' ', not a text"),
    ("pope", {"answer": None}, "field 'answer' is None"),
    ("pope", {"image": "gone.png"}, r"gone\.png: no such file"),
    ("pope", {"question": ...}, r"has no field 'question', a text \(its fields: answer, category, .*\)"),
    ("mme", {"category": "ocr"}, "field 'category' is 'ocr', not one of MME's categories"),
    ("scienceqa", {"choices": ["one"]}, "field 'choices' is .*, not a list of two texts or more"),
    ("scienceqa", {"answer": 5}, "row 0: the right answer is option 5 of 2, counted from 0"),
    ("vqav2", {"answers": [{"said": "x"}]}, "field 'answers' is .*, not a list of the annotators' answers"),
    ("ai2d", {"answer": "C"}, "field 'answer' is 'C', not the number of an option"),
    ("mmbench_en", {"A": None}, "field 'A' is None, not a text"),
    ("refcoco", {"bbox": [1.0, 2.0]}, r"field 'bbox' is \[1.0, 2.0\], not a box"),
])  # fmt: skip
def test_the_first_wrong_field_is_named(tmp_path, name, change, says):
    row = {**ROWS[name][0], **change}
    if not isinstance(row["image"], str):
        (tmp_path / "0.png").write_bytes(row["image"]["bytes"])
        row["image"] = "0.png"
    (tmp_path / "rows.json").write_text(json.dumps([{k: v for k, v in row.items() if v is not ...}]))
    with pytest.raises(InputError, match=says):
        check_benchmark(name, root=tmp_path)


def test_a_wrong_row_further_down_is_named_when_the_suite_is_read(tmp_path):
    rows = [*ROWS["pope"][:3], {**ROWS["pope"][3], "answer": "Yes, there is"}]
    root = save(tmp_path / "pope", "pope", "test", rows)
    assert check_benchmark("pope", root=root).asked.answers == ("no",)
    with pytest.raises(InputError, match="pope, row 3: field 'answer' is 'Yes, there is', not yes or no"):
        load_benchmark("pope", root=root)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        check_benchmark("pope", root=tmp_path / "nowhere")
    (tmp_path / "rows.json").write_text("not json")
    with pytest.raises(InputError, match=r"pope: .*cannot be loaded"):
        check_benchmark("pope", root=tmp_path)
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(InputError, match=r"rows\.csv: rows are read from \.json, \.jsonl, \.parquet"):
        check_benchmark("pope", root=tmp_path / "rows.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="pope: empty: cannot be loaded"):
        check_benchmark("pope", root=tmp_path / "empty")


def test_a_picture_that_is_none(tmp_path):
    row = {**ROWS["pope"][0], "image": {"bytes": b"no picture", "path": "a.png"}}
    root = save(tmp_path / "pope", "pope", "test", [row])
    with pytest.raises(InputError, match=r"a\.png: not a picture"):
        check_benchmark("pope", root=root)
