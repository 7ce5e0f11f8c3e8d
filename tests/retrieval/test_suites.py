"""CraterBench-R from small files of its own form, and the drawn craters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tokenprune.errors import InputError, UnknownNameError
from tokenprune.retrieval.suites import craterbench, load_suite
from tokenprune.zoo import craters as zoo


def entry(crater: str, mark: str, folder: str, **more: Any) -> dict[str, Any]:
    name = f"{crater}_{mark}"
    return {"image_id": name, "path": f"images/{folder}/{name}.jpg", "crater_id": crater, **more}


@pytest.fixture
def folder(tmp_path) -> Path:
    gallery = [entry(c, v, "gallery", view_type=v) for c in ("02-1", "02-2", "02-3") for v in ("2x", "3x")]
    queries = [entry(c, f"q{i}", "query") for c in ("02-1", "02-2") for i in range(2)]
    for number, one in enumerate((*gallery, *queries)):
        path = tmp_path / one["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(path)
    write(tmp_path, "splits/test.json", {
        "split_name": "test", "version": "release_v1", "gallery_images": gallery, "query_images": queries
    })  # fmt: skip
    return tmp_path


def write(folder: Path, name: str, body: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body))


def test_craterbench_is_read(folder):
    suite = craterbench(folder)
    assert [g.id for g in suite.gallery][:2] == ["02-1_2x", "02-1_3x"]
    assert suite.gallery[5].crater == "02-3"
    assert suite.gallery[1].load().getpixel((0, 0))[0] == pytest.approx(20, abs=2)
    assert suite.queries[0].load().getpixel((0, 0))[0] == pytest.approx(120, abs=2)
    assert suite.queries[3].relevant == ("02-2",)
    assert suite.about["version"] == "release_v1"
    assert len(craterbench(folder, limit=1).queries) == 1


@pytest.mark.parametrize("value", [
    ["02-1", "02-3", "99-9"],
    {"raw_co_visible": ["99-9", "02-2"], "gallery_filtered": ["02-1", "02-3"]},
    {"co_visible": ["02-2"], "relevant_ids": ["02-1", "02-3", "02-3"]},
])  # fmt: skip
def test_craters_of_the_same_ground_count_where_they_are_in_the_gallery(folder, value):
    write(folder, "metadata/query_relevance.json", {"02-1": value})
    relevant = [q.relevant for q in craterbench(folder).queries]
    assert relevant == [("02-1", "02-3"), ("02-1", "02-3"), ("02-2",), ("02-2",)]


@pytest.mark.parametrize(("name", "body", "says"), [
    ("splits/test.json", "{", "test.json: cannot be read"),
    ("splits/test.json", [], "object was expected"),
    ("splits/test.json", {"gallery_images": []}, "no list 'gallery_images'"),
    ("splits/test.json", {"gallery_images": [{"image_id": 1}]}, "no 'path'"),
    ("splits/test.json", {"gallery_images": [entry("a", "2x", "../../..")], "query_images": [entry("a", "q", "q")]},
     "leads out"),
    ("metadata/query_relevance.json", {"02-1": {"seen": ["02-2"]}}, "none of the fields"),
])  # fmt: skip
def test_files_that_are_wrong_are_named(folder, name, body, says):
    write(folder, name, body)
    with pytest.raises(InputError, match=says):
        craterbench(folder)


def test_suites_by_name(folder):
    found = load_suite({"name": "craterbench", "folder": folder.name}, folder.parent)
    assert found.name == "craterbench-r" and len(found.gallery) == 6
    drawn = load_suite({"name": "craters", "identities": 3, "asked": 2})
    assert [g.id for g in drawn.gallery] == [p.id for p in zoo.suite("test", 3, 2).gallery]
    assert drawn.queries[0].load().size == (112, 112)
    assert drawn.queries[0].crater in drawn.queries[0].relevant
    with pytest.raises(UnknownNameError, match="craterbench"):
        load_suite("craterbenc")
    with pytest.raises(InputError, match="suite craters"):
        load_suite({"name": "craters", "identity": 3})
