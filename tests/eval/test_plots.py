"""What a reader of a run's figure can tell apart."""

import pytest

pytest.importorskip("matplotlib")

from tokenprune.eval.plots import FEW, tokens_figure


def body(count, half=0.04):
    def row(label, keep, value):
        score = {"value": value, "low": value - half, "high": value + half}
        tokens = {"equivalent": 100 * (keep or 1), "before": 100}
        return {"label": label, "keep": keep, "score": score, "tokens": tokens, "baseline": False}

    rows = [row("none", None, 0.9), row("blind", None, 0.1)]
    rows += [row(f"m{i}", keep, 0.2 + 0.01 * i + keep) for i in range(count) for keep in (0.25, 0.1)]
    about = {"model": {"name": "tiny", "version": None}, "suite": {"name": "s", "metric": "exact", "samples": 9}}
    return {"rows": rows, **about}


def curves(figure):
    return [line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")]


def test_no_two_curves_look_alike_and_the_legend_reads_from_top_to_bottom():
    figure = tokens_figure(body(40))
    assert len({(line.get_color(), line.get_marker()) for line in curves(figure)}) == 40
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"m{i}" for i in reversed(range(40))]
    axes, legend = figure.axes[0], figure.legends[0]
    figure.draw_without_rendering()
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1, "nothing is drawn behind it"


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_intervals_are_bands_of_few_curves_and_one_bar_of_many(count):
    axes = tokens_figure(body(count)).axes[0]
    bands, said = len(axes.collections), [text.get_text() for text in axes.texts]
    if count <= FEW:
        assert bands == count and not any("interval" in text for text in said)
    else:
        assert "95 % interval, median: ± 4.0" in said and bands <= 1


def test_a_curve_looks_the_same_whoever_else_is_drawn():
    def style(labels):
        return {c.get_label(): (c.get_color(), c.get_marker()) for c in curves(tokens_figure(body(12), labels))}

    assert style(["m9"])["m9"] == style(None)["m9"]
