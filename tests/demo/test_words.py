"""Differences, bars and the lines to copy."""

import pytest

from tokenprune.bench.timer import Ratio
from tokenprune.compare.result import Answer, Speed
from tokenprune.demo.bars import Bar, bars_html, bars_of
from tokenprune.demo.snippet import lines_of
from tokenprune.demo.words import marked, similarity
from tokenprune.methods import get_method
from tokenprune.tokens import FixationReport, PruneReport


def test_words_that_differ_are_marked():
    assert marked("a red star", "a blue star") == 'a <mark title="instead of: blue">red</mark> star'
    assert marked("A red star.", "a red star") == "A red star."
    assert marked("a star", "a red star") == (
        'a <del title="missing: red" aria-label="missing: red">&#8248;</del> star'
    )
    assert marked("a very red star", "a red star") == (
        'a <mark title="not in the unpruned answer">very</mark> red star'
    )
    assert marked("one\ntwo", "one\ntwo") == "one<br>two"
    assert marked("", "red") == '<del title="missing: red" aria-label="missing: red">&#8248;</del>'
    assert marked("", "") == ""


def test_answers_are_never_markup():
    found = marked("<script>x</script>", '"><img src=x>')
    assert "<script" not in found and "<img" not in found


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("red", "red", 1),
        ("Red.", "red", 1),
        ("red", "blue", 0),
        ("", "", 1),
        ("a b", "a c", 0.5),
        ("", "a", 0),
    ],
)
def test_words_in_common(one, other, share):
    assert similarity(one, other) == pytest.approx(share)


def report(**more):
    values = {
        "images": [object()], "logical": 600, "physical": [100], "equivalent_tokens": 64.0, "flops": 2e9,
        "flops_unpruned": 8e9, "kv_bytes": 2**20, "kv_bytes_unpruned": 2**22, **more,
    }  # fmt: skip
    return PruneReport(**values)


@pytest.fixture
def answer(monkeypatch):
    monkeypatch.setattr(PruneReport, "before", property(lambda self: 576))
    return Answer(0, "uniform", 0.111, "red", report=report())


def test_bars_are_shares_of_the_unpruned_model(answer):
    ratio = Ratio(0.5, 0.4, 0.45, 0.55, 2, 0.01, 0.02)
    slow = Ratio(1.25, 1.2, 1.2, 1.3, 2, 0.005, 0.004)
    bars = {bar.label: bar for bar in bars_of(answer, Speed(ratio, slow))}
    assert bars["tokens"].share == pytest.approx(64 / 576) and bars["tokens"].text == "64 of 576"
    assert bars["FLOPs"].share == 0.25 and bars["KV cache"].share == 0.25
    assert bars["KV cache"].text == "1 of 4 MiB"
    assert bars["prefill"].share == 0.5 and bars["prefill"].text == "of 20 ms"
    text = bars_html(list(bars.values()))
    assert 'style="width:11.1%"' in text and "125%" in text and text.count("tp-over") == 1
    assert 'style="width:100.0%"' in text  # never wider than its track
    noise = bars_of(answer, Speed(ratio, Ratio(1.25, 1.2, 0.9, 1.4, 2, 0.005, 0.004)))
    assert bars_html(noise).count("tp-over") == 0


def test_bars_without_times_and_of_what_only_looks(answer):
    assert [b.label for b in bars_of(answer, None)] == ["tokens", "FLOPs", "KV cache"]
    waiting = bars_of(answer, None, waiting=True)[-2:]
    assert [(b.label, b.share) for b in waiting] == [("prefill", None), ("decode", None)]
    answer.report.fixation = FixationReport(3, [5], [576], [], 0.05, 0.23)
    first = bars_of(answer, None)[0]
    assert (first.label, first.share, first.text) == ("read", 0.23, "a step reads 23%")
    assert bars_of(Answer(0, "none", None), None) == []
    assert bars_html([]) == "" and "&lt;" in bars_html([Bar("<", 0.5, "<")])


def test_the_lines_compile_and_name_what_differs_from_the_defaults():
    methods = [get_method("fixation", keep=0.1, focal=(2, 5)), get_method("pool", keep=0.5)]
    code = lines_of("tiny-qwen", "/tmp/x/a 'b'.mp4", 'what\'s "up"?', methods, frames=8, max_new_tokens=9)
    compile(code, "<lines>", "exec")
    assert "/tmp/x" not in code and "frames=8" in code and "load_clip" in code
    assert "('fixation', {'keep': 0.1, 'focal': (2, 5)})" in code and "('pool', {'keep': 0.5})" in code
    assert "device='cuda'" in lines_of("m", "a.png", "q", methods, options={"device": "cuda"})
