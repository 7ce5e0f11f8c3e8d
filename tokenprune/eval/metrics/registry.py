"""The metrics by name, and the contract they share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ...errors import InputError, TokenPruneError, UnknownNameError, neighbours

Metric = Callable[[str, Sequence[str]], float]
_METRICS: dict[str, Metric] = {}


def metric(name: str) -> Callable[[Metric], Metric]:
    """Function decorator: make `(output, answers) -> float in [0, 1]` known by `name`.

    `output` is the model's text and `answers` the accepted ones, at least one. The function returned, which is
    also the one registered, raises `InputError` when they are not: a bare string of answers would otherwise be
    read letter by letter, and an empty list would score 0 without a word.
    """

    def bind(score: Metric) -> Metric:
        other = _METRICS.get(name)
        if other is not None and (other.__module__, other.__name__) != (score.__module__, score.__name__):
            raise TokenPruneError(f"a metric named {name!r} is already registered ({other.__module__})")

        @functools.wraps(score)
        def checked(output: str, answers: Sequence[str]) -> float:
            if not isinstance(output, str):
                raise InputError(f"metric {name!r} scores a text, not {output!r}")
            if isinstance(answers, str) or not answers or not all(isinstance(a, str) for a in answers):
                raise InputError(
                    f"metric {name!r} takes a list of one or more answers as text, not {answers!r}"
                )
            return float(score(output, answers))

        _METRICS[name] = checked
        return checked

    return bind


def get_metric(name: str) -> Metric:
    """The metric registered as `name`; `UnknownNameError` lists its neighbours."""
    if name not in _METRICS:
        raise UnknownNameError(f"no metric is named {name!r}; {neighbours(name, _METRICS)}")
    return _METRICS[name]


def list_metrics() -> list[str]:
    """The names of all metrics, sorted."""
    return sorted(_METRICS)
