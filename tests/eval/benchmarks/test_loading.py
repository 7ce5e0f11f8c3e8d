"""Every benchmark from files of its own shape, read by the `datasets` library as the hub's are."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.eval.benchmarks.make import CLIPS, FEATURES, ROWS, datasets, png, save, write_clip
from tokenprune.errors import InputError, UnknownNameError
from tokenprune.eval.benchmarks import get_benchmark, list_benchmarks, load_benchmark
from tokenprune.eval.benchmarks.dataset import open_rows
from tokenprune.eval.sources import load_suite

SHORT = "\nAnswer the question using a single word or phrase."
ASK = "\nAnswer with the option's letter from the given choices directly."
CIRCULAR = " There are several options:\nA. cat\nB. dog\nC. cow\n\n"
WATCH = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond "
    "with only the letter (A, B, C, or D) of the correct option.\n"
)
BOXED = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
    "region this sentence describes: the dog"
)
FIRST = {  # name: id, prompt, answers, kind, group; and how many samples and groups there are
    "gqa": ("7", f"Is it red?{SHORT}", ("no",), None, "n2", 3, 2),
    "vqav2": ("42000", f"What?{SHORT}", ("cat",) * 7 + ("dog",) * 3, None, "42", 3, 2),
    "textvqa": ("5", f"What is the nasa sign?{SHORT}", ("stop",) * 10, None, None, 2, 1),
    "pope": ("adversarial-0", f"Is there a 0 in the image?{SHORT}", ("no",), "adversarial", None, 18, 2),
    "mme": ("commonsense_reasoning/d.jpg", f"Is there a dog in this image?{SHORT}", ("Yes",), "commonsense_reasoning",
            "commonsense_reasoning/d.jpg", 8, 4),
    "mmbench_en": ("1000003", "Which?" + CIRCULAR.replace("cat", "x").replace("cow", "cat").replace("dog", "cow")
                   .replace("x", "dog") + ASK[1:], ("A",), "coarse", "3", 5, 2),
    "mmbench_cn": ("1000003", "nan Which?" + CIRCULAR.replace("cat", "x").replace("cow", "cat").replace("dog", "cow")
                   .replace("x", "dog") + "请直接使用所提供的选项字母作为答案回答。", ("A",), "coarse", "3", 5, 2),
    "scienceqa": ("0", f"Context: A hint.\nWhich?\nA. iron\nB. wood{ASK}", ("B",), None, None, 2, 2),
    "ai2d": ("0", f"What eats it?\nA. fox\nB. owl\nC. cat\nD. hen{ASK}", ("C",), None, None, 2, 1),
    "chartqa": ("0", "How many?\nAnswer the question with a single word.", ("14",), "human", None, 2, 2),
    "docvqa": ("11", f"Who signed?{SHORT}", ("Paris", "paris"), None, None, 2, 1),
    "ocrbench": ("0", "what is written?", ("STOP",), "Regular Text Recognition", None, 2, 2),
    "refcoco": ("r1-0", BOXED, ("[0.100000, 0.100000, 0.500000, 0.500000]",), None, None, 3, 1),
    "videomme": ("000", f"{WATCH}What?\nA. a cat.\nB. a dog.\nC. a cow.\nD. a hen.\n{ASK}", ("B",), "short", "v1",
                 2, 1),
    "mvbench": ("action_count-000", "Question:What?\nOption:\n(A) run\n(B) sit\n(C) eat\nOnly give the best option.\n",
                ("B",), "action_count", "video/perception/videos/c1.mp4", 2, 2),
    "egoschema": ("e1", "What does C do?\nA. C cuts wood\nB. C eats\nC. C runs\nD. C sings\nE. C sleeps" + ASK, ("B",),
                  None, "e1", 1, 1),
    "longvideobench": ("l1", f"When?\nA. first\nB. then\nC. last\n{ASK}\n", ("B",), "15", "l1.mp4", 1, 1),
}  # fmt: skip
TOKENS = {"gqa": 16, "vqav2": 16, "textvqa": 32, "pope": 128, "mme": 16, "mmbench_en": 1024, "mmbench_cn": 256,
          "scienceqa": 16, "ai2d": 16, "chartqa": 16, "docvqa": 32, "ocrbench": 128, "refcoco": 64, "refcoco+": 64,
          "refcocog": 64, "videomme": 16, "mvbench": 16, "egoschema": 16, "longvideobench": 32}  # fmt: skip
OPTIONS = {"mvbench": {"tasks": ["action_count"]}}


def home_of(tmp_path, name):
    """A folder as a clone of the benchmark's dataset would be."""
    root = tmp_path / name
    benchmark = get_benchmark(name)
    part = benchmark.wanted(None, None, {**benchmark.options, **OPTIONS.get(name, {})})[0]
    if name == "gqa":
        save(root / part.config, name, part.split)
        pictures = [{"id": f"n{n}", "image": png(n)} for n in (1, 2)]
        made = datasets.Dataset.from_list(
            pictures, datasets.Features({"id": FEATURES["gqa"]["id"], "image": datasets.Image()})
        )
        (root / "testdev_balanced_images").mkdir()
        made.to_parquet(root / "testdev_balanced_images" / "testdev-00000-of-00001.parquet")
    else:
        save(root / part.config if part.config else root / "data", name, part.split)
    for clip in CLIPS.get(name, ()):
        write_clip((root / clip).with_suffix(".gif"))
    return root


def test_every_benchmark_is_tried_and_pins_its_length():
    assert set(FIRST) | {"refcoco+", "refcocog"} == set(list_benchmarks()) == set(TOKENS)
    assert {name: get_benchmark(name).max_new_tokens for name in TOKENS} == TOKENS
    assert all(get_benchmark(name).ids for name in TOKENS)


@pytest.mark.parametrize("name", FIRST)
def test_a_benchmark_as_a_suite(tmp_path, name):
    root = home_of(tmp_path, name)
    suite = load_suite({"name": name, "root": root.name, **OPTIONS.get(name, {})}, tmp_path)
    id, question, answers, kind, group, samples, groups = FIRST[name]
    first = next(s for s in suite.samples if s.id == id)
    assert (first.question, first.answers, first.kind) == (question, answers, kind)
    assert len(suite.samples) == samples and len({s.group for s in suite.samples}) == groups
    assert group is None or first.group == group
    assert suite.metric == f"{name}.lmms" and suite.also == (f"{name}.strict",)
    assert suite.max_new_tokens == TOKENS[name] and suite.video == (name in CLIPS) and suite.graded
    assert suite.about["benchmark"] == name and suite.about["source"] == "local files"
    assert str(tmp_path) not in json.dumps({**suite.about, "facts": [dict(s.facts) for s in suite.samples]})
    medium = first.picture.load()
    assert medium.frames.shape[0] == 8 if name in CLIPS else medium.size == (40, 20)


def test_pictures_are_those_of_their_rows(tmp_path):
    suite = load_benchmark("gqa", root=home_of(tmp_path, "gqa"))
    assert {s.id: s.picture.load().getpixel((0, 0))[0] for s in suite.samples} == {"7": 2, "8": 1, "9": 2}
    suite = load_benchmark("vqav2", root=home_of(tmp_path, "vqav2"))
    assert [s.picture.load().getpixel((0, 0))[0] for s in suite.samples] == [1, 1, 2]


def test_limits_take_whole_pictures_and_questions(tmp_path):
    mme = load_benchmark("mme", root=home_of(tmp_path, "mme")).limited(5)
    assert mme.subset and len(mme.samples) == 4 and len({s.group for s in mme.samples}) == 2
    turned = load_benchmark("mmbench_en", root=home_of(tmp_path, "mmbench_en")).limited(4)
    assert len({s.group for s in turned.samples}) == 1 and len(turned.samples) in (2, 3)
    pope = load_benchmark("pope", root=home_of(tmp_path, "pope")).limited(10)
    assert len(pope.samples) == 9, "one picture's questions of all three kinds"


def test_options_of_a_benchmark(tmp_path):
    root = home_of(tmp_path, "textvqa")
    seen = load_benchmark("textvqa", root=root, ocr=True, max_new_tokens=7, metric="textvqa.strict", also=[])
    assert seen.samples[0].question == f"What is the nasa sign?\nReference OCR token: STOP, 4-way{SHORT}"
    assert (seen.max_new_tokens, seen.metric, seen.also) == (7, "textvqa.strict", ())
    with pytest.raises(UnknownNameError, match="no option 'ocrs'; did you mean ocr"):
        load_benchmark("textvqa", root=root, ocrs=True)
    with pytest.raises(InputError, match="is of pictures"):
        load_benchmark("textvqa", root=root, frames=4)
    boxes = load_benchmark("refcoco", root=home_of(tmp_path, "refcoco"), boxes="thousand")
    assert boxes.samples[0].facts == {"size": [40, 20], "boxes": "thousand"}
    with pytest.raises(InputError, match="row 0: option boxes='mm': one of unit, thousand, pixels"):
        load_benchmark("refcoco", root=root.parent / "refcoco", boxes="mm")
    with pytest.raises(UnknownNameError, match="no task 'counting'"):
        load_benchmark("mvbench", root=root, tasks=["counting"])
    with pytest.raises(UnknownNameError, match="did you mean .*textvqa"):
        load_suite("textvqq")


def test_a_hub_dataset_goes_through_load_dataset_by_each_of_its_names(tmp_path, monkeypatch):
    """The same call with a folder for an id: a clone with a card of configurations, as the hub serves it."""
    root = save(tmp_path / "ScienceQA" / "img", "scienceqa", "test").parent
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: ScienceQA-IMG\n  data_files:\n  - split: test\n    path: img/test-*\n---\n"
    )
    benchmark = get_benchmark("scienceqa_img")
    assert benchmark is get_benchmark("scienceqa")
    monkeypatch.chdir(tmp_path)
    object.__setattr__(benchmark, "ids", ("nobody/Nothing", "./ScienceQA"))
    try:
        rows = open_rows(benchmark, benchmark.parts[0], None, None)
        assert rows[1]["choices"] == ["a", "b", "c"] and set(rows[0]["image"]) == {"bytes", "path"}
        assert next(iter(open_rows(benchmark, benchmark.parts[0], None, None, streaming=True)))["answer"] == 1
        assert load_benchmark("scienceqa", id="./ScienceQA").samples[0].answers == ("B",)
        assert load_benchmark("scienceqa", root=root).about["source"] == "local files"
        with pytest.raises(
            InputError, match=r"nobody/Nothing \(.*\).*suite: \{name: scienceqa, root: /data/scienceqa\}"
        ):
            load_benchmark("scienceqa", id="nobody/Nothing")
    finally:
        object.__setattr__(benchmark, "ids", ("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"))


def test_rows_as_json_beside_their_pictures(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for n, row in enumerate(ROWS["chartqa"]):
        (tmp_path / "images" / f"{n}.png").write_bytes(row["image"]["bytes"])
        rows.append({**row, "image": f"images/{n}.png"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for root in (tmp_path, tmp_path / "rows.jsonl"):
        suite = load_benchmark("chartqa", root=root)
        assert [s.picture.load().getpixel((0, 0))[0] for s in suite.samples] == [8, 9]
        assert [s.picture.name for s in suite.samples] == ["0.png", "1.png"]
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: no such file"):
        load_benchmark("chartqa", root=tmp_path).samples[1].picture.load()


def test_a_listing_by_split_or_task(tmp_path):
    for split, answer in (("val", "4"), ("test", "5")):
        row = {**ROWS["chartqa"][0], "answer": answer, "image": "0.png"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    assert load_benchmark("chartqa", root=tmp_path).samples[0].answers == ("5",)
    assert load_benchmark("chartqa", root=tmp_path, split="val").samples[0].answers == ("4",)
    with pytest.raises(InputError, match=r"holds test\.jsonl, val\.jsonl, \.\.\., none named train"):
        load_benchmark("chartqa", root=tmp_path, split="train")
    (tmp_path / "mv/json").mkdir(parents=True)
    for task in ("action_count", "state_change"):
        (tmp_path / f"mv/json/{task}.json").write_text(json.dumps(ROWS["mvbench"]))
    suite = load_benchmark("mvbench", root=tmp_path / "mv", tasks=["state_change", "action_count"], frames=4)
    assert suite.kinds == ["action_count", "state_change"] and len(suite.samples) == 4
    assert suite.about["sampling"] == {"frames": 4}


def test_what_save_to_disk_wrote(tmp_path):
    made = datasets.Dataset.from_list(ROWS["docvqa"], datasets.Features(FEATURES["docvqa"]))
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"validation": made, "test": made.select([1])}).save_to_disk(tmp_path / "both")
    assert len(load_benchmark("docvqa", root=tmp_path / "one").samples) == 2
    assert len(load_benchmark("docvqa", root=tmp_path / "both").samples) == 2
    assert len(load_benchmark("docvqa", root=tmp_path / "both", split="test").samples) == 1
    with pytest.raises(InputError, match="no split 'train'; there are: validation, test"):
        load_benchmark("docvqa", root=tmp_path / "both", split="train")


def test_splits_of_pope_lie_in_a_configuration_of_their_own(tmp_path):
    rows = [{**row, "category": None} for row in ROWS["pope"][:2]]
    save(tmp_path / "Full", "pope", "adversarial", rows)
    suite = load_benchmark("pope", root=tmp_path, split="adversarial")
    assert {s.kind for s in suite.samples} == {"adversarial"} and suite.about["split"] == ["adversarial"]


def test_clips_are_found_by_the_names_of_rows(tmp_path):
    root = home_of(tmp_path, "videomme")
    with pytest.raises(InputError, match="its clips are files; name their folder"):
        load_benchmark("videomme")
    elsewhere = tmp_path / "clips" / "part 1"
    write_clip(elsewhere / "v1.gif")
    shutil.rmtree(root / "data" / "x", ignore_errors=True)
    (root / "data" / "v1.gif").unlink()
    suite = load_benchmark("videomme", root=root, media=tmp_path / "clips", frames=4)
    assert suite.samples[0].picture.load().frames.shape[0] == 4
    write_clip(tmp_path / "clips" / "part 2" / "v1.gif")
    with pytest.raises(InputError, match=r"v1 is part 1/v1\.gif and part 2/v1\.gif"):
        load_benchmark("videomme", root=root, media=tmp_path / "clips")
    missing = load_benchmark("videomme", root=root)
    with pytest.raises(InputError, match="v1: no such file"):
        missing.samples[0].picture.load()


def test_without_datasets_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"datasets.*tokenprune-vlm\[eval\]"):
        load_benchmark("chartqa", root=tmp_path)
