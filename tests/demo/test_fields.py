"""Forms are made from dataclasses alone: what a form shows and takes back is what the method has."""

import pytest

from tokenprune import TokenPruneError, get_method, list_methods
from tokenprune.demo.fields import Field, build, changed, check, fields_of
from tokenprune.errors import BudgetError, InputError


@pytest.mark.parametrize("name", list_methods())
def test_an_untouched_form_is_the_method_as_it_is(name):
    shown = {field.name: field.shown(field.default) for field in fields_of(name)}
    assert changed(name, shown) == {}
    assert build(name, 50, shown) == get_method(name, keep=0.5)


def test_every_hyper_parameter_has_a_field_but_those_that_could_name_a_file():
    missing = {
        (name, hyper)
        for name in list_methods()
        for hyper in get_method(name).hyper()
        if hyper != "keep" and hyper not in {field.name for field in fields_of(name)}
    }
    assert missing == {("cdpruner", "text_tower")}
    assert changed("cdpruner", {"text_tower": "/etc"}) == {}


def test_kinds_come_from_the_annotations():
    kinds = {field.name: (field.kind, field.optional) for field in fields_of("flashvlm")}
    assert kinds["eta"] == ("number", False) and kinds["dedup_step"] == ("whole", False)
    assert kinds["window"] == ("whole", True) and kinds["norm_gate"] == ("flag", False)
    fields = {field.name: field for field in fields_of("fastv")}
    assert fields["budget"].choices == ("average", "after")
    assert {f.name: f.kind for f in fields_of("fixation")}["focal"] == "text"
    assert {f.name: f.choices for f in fields_of("progressive")}["absorb"] == ("none", "true", "false")


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("fixation", {"focal": "2, 0.5, 7"}, {"focal": (2, 0.5, 7)}),
        ("fixation", {"focal": "3"}, {}),
        ("fixation", {"focal": "5", "heads": "max", "theta": 0.8}, {"focal": 5, "heads": "max"}),
        ("fixation", {"per_group": True}, {"per_group": True}),
        ("flashvlm", {"window": None, "eta": 0.25, "nothing": 3}, {"window": None, "eta": 0.25}),
        ("progressive", {"absorb": "true"}, {"absorb": True}),
        ("visionzip", {"compat": "official"}, {"compat": "official"}),
        ("visionzip", {"compat": "none"}, {}),
        ("dart", {"layer": 1, "visual_pivots": 5.0}, {"layer": 1, "visual_pivots": 5}),
    ],
)  # fmt: skip
def test_what_a_form_gives(method, given, expected):
    found = changed(method, given)
    assert found == expected and {k: type(v) for k, v in found.items()} == {
        k: type(v) for k, v in expected.items()
    }
    check(method, given)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("flashvlm", {"dedup_step": 1.5}),
        ("flashvlm", {"eta": None}),
        ("flashvlm", {"eta": 7}),
        ("visionzip", {"compat": "/etc/passwd"}),
        ("fixation", {"focal": "/etc/passwd"}),
        ("fixation", {"focal": "[1, {a: b}]"}),
        ("fixation", {"focal": "!!python/object/apply:os.system ['true']"}),
    ],
)
def test_what_cannot_be_meant_is_refused(method, given):
    with pytest.raises(TokenPruneError):
        check(method, given)


def test_budgets():
    assert build("pool", 11.1).keep == pytest.approx(0.111)
    with pytest.raises(BudgetError):
        build("pool", 0)
    with pytest.raises(InputError):
        Field("n", "whole", 3).parse("")
