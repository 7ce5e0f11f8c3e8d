import json

import pytest

from tokenprune.errors import InputError, UnknownNameError
from tokenprune.eval.sources import load_suite
from tokenprune.eval.suite import Sample, make_suite
from tokenprune.media import Picture
from tokenprune.zoo import scenes


def test_a_listing_and_its_folder_are_the_same_suite(listing):
    one, two = load_suite(str(listing)), load_suite(str(listing.parent))
    assert one.samples == two.samples and len(one.samples) == 12 and one.hash() == two.hash()
    assert one.graded and one.kinds == ["a", "b"] and one.majority() == {"a": 1.0, "b": 1.0}
    first = one.samples[0]
    assert (first.id, first.answers, first.group, first.kind) == ("q00", ("red",), "0.png", "a")
    assert first.picture.load().size == (32, 32)


def test_the_five_lines_of_the_readme(tmp_path, listing):
    """A folder of pictures with questions for all of them, without answers."""
    (listing.parent / "questions.jsonl").unlink()
    suite = load_suite({"name": str(listing.parent), "questions": ["What is this?", "How many?"]})
    assert len(suite.samples) == 10 and not suite.graded and suite.samples[0].answers == ()
    assert len({s.group for s in suite.samples}) == 5


def test_samples_are_sorted_and_the_hash_sees_every_word(listing):
    text = listing.read_text().splitlines()
    listing.write_text("\n".join(reversed(text)))
    turned = load_suite(str(listing))
    assert [s.id for s in turned.samples] == [f"q{i:02d}" for i in range(12)]
    before = turned.hash()
    listing.write_text("\n".join(text).replace("is the circle red ?", "is the circle blue ?", 1))
    assert load_suite(str(listing)).hash() != before


def test_options_of_a_listing(listing, tmp_path):
    suite = load_suite({"name": listing.name, "metric": "anls", "max_new_tokens": 5}, home=listing.parent)
    assert suite.metric == "anls" and suite.max_new_tokens == 5
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_text(listing.read_text())
    assert load_suite({"name": str(moved), "images": "suite"}).samples[3].picture.load().size == (32, 32)


@pytest.mark.parametrize(("line", "says"), [
    ("not json", "line 2: not JSON"),
    ('["image"]', "line 2: each line is an object"),
    ('{"question": "x"}', "line 2: has no 'image'"),
    ('{"image": "0.png", "question": " "}', "line 2: has no 'question'"),
    ('{"image": "0.png", "question": "x", "answers": {"a": 1}}', "line 2: `answers` is a list"),
    ('{"image": "0.png", "question": "x", "id": "q00"}', "'q00' comes more than once"),
])  # fmt: skip
def test_a_bad_line_is_named(listing, line, says):
    good = listing.read_text().splitlines()
    listing.write_text("\n".join([good[0], line]))
    with pytest.raises(InputError, match=says):
        load_suite(str(listing))


def test_an_empty_suite_and_unknown_names(tmp_path, listing):
    listing.write_text("\n")
    with pytest.raises(InputError, match="questions: holds no sample"):
        load_suite(str(listing))
    with pytest.raises(UnknownNameError, match="did you mean scenes"):
        load_suite("scene")
    with pytest.raises(InputError, match=r"no/where\.jsonl: no such file"):
        load_suite("no/where.jsonl")
    with pytest.raises(UnknownNameError, match="no option 'metrics'.*metric"):
        load_suite({"name": str(listing.parent), "questions": "x", "metrics": "anls"})
    with pytest.raises(InputError, match="n must be at least 1"):
        load_suite({"name": "scenes", "n": 0})
    with pytest.raises(InputError, match="suite scenes"):
        load_suite({"name": "scenes", "m": 3})


def test_scenes_are_the_zoos(listing):
    suite, zoo = load_suite({"name": "scenes", "n": 27}), {s.id: s for s in scenes.suite("test", 27, 0)}
    assert {s.id for s in suite.samples} == set(zoo)
    for sample in suite.samples:
        assert (sample.question, sample.answers) == (zoo[sample.id].question, (zoo[sample.id].answer,))
        assert sample.group == sample.id.split("-")[0]
    assert suite.samples[0].picture.load().tobytes() == zoo[suite.samples[0].id].image.tobytes()


def test_a_limit_takes_whole_groups_and_says_subset(listing):
    suite = load_suite(str(listing))
    small = suite.limited(5)
    assert small.subset and 0 < len(small.samples) <= 5
    for sample in small.samples:
        assert {s.id for s in suite.samples if s.group == sample.group} <= {s.id for s in small.samples}
    assert suite.limited(12) is suite and suite.limited(None) is suite
    assert json.dumps([s.id for s in small.samples]) == json.dumps(sorted(s.id for s in small.samples))
    with pytest.raises(InputError, match="at least one"):
        suite.limited(0)


def test_a_suite_made_in_code():
    sample = Sample("x", "q", ("a",), Picture("p", "p.png"), "p")
    assert make_suite("mine", [sample], metric="anls").metric == "anls"
    with pytest.raises(InputError, match="comes more than once"):
        make_suite("mine", [sample, sample])
