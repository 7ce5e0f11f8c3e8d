"""Density peaks, cluster means and rating words against plain loops."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune import kernels
from tokenprune.kernels.clusters import density_peaks, group_means, rows
from tokenprune.kernels.raters import visual_words

from ..methods.watch import Watch

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def peaks_reference(x: torch.Tensor, count: int, neighbours: int = 5) -> tuple[list[int], list[int], float]:
    """(R, D) -> centres, labels, smallest gap between two numbers that were compared; point by point."""
    points, r = x.double().tolist(), len(x)
    d = [[math.dist(a, b) / math.sqrt(x.shape[1]) for b in points] for a in points]
    near = min(neighbours, r)
    log_rho = [-sum(v * v for v in sorted(row)[:near]) / near for row in d]
    denser = [
        [j for j in range(r) if (log_rho[j], -j) > (log_rho[i], -i)] for i in range(r)
    ]  # ties: the lower index
    longest = max(max(row) for row in d)
    delta = [min((d[i][j] for j in denser[i]), default=longest) for i in range(r)]
    peak = [p + math.log(max(v, 1e-12)) for p, v in zip(log_rho, delta)]
    first = next(i for i in range(r) if not denser[i])
    centres = [first, *sorted((i for i in range(r) if i != first), key=lambda i: (-peak[i], i))][:count]
    labels = [min(range(count), key=lambda c: (d[i][centres[c]], c)) for i in range(r)]
    for c, i in enumerate(centres):
        labels[i] = c
    close = [abs(a - b) for v in (log_rho, peak) for k, a in enumerate(v) for b in v[:k]]
    close += [abs(d[i][a] - d[i][b]) for i in range(r) for k, a in enumerate(centres) for b in centres[:k]]
    return centres, labels, min(close, default=1.0)


@quick
@given(st.integers(1, 24), st.integers(1, 6), st.data(), st.sampled_from([0.1, 1.0, 30.0]))
def test_density_peaks_equal_a_loop(r, width, data, scale):
    count, seed = data.draw(st.integers(1, r)), data.draw(st.integers(0, 10**6))
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(2, r, width, generator=g) + 5
    got = density_peaks(x, count)
    assert got.centre.shape == (2, count) and got.label.shape == (2, r)
    for i in range(2):
        centres, labels, close = peaks_reference(x[i], count)
        if close < 1e-4 * scale:
            continue  # float32's to decide
        assert got.centre[i].tolist() == centres
        assert got.label[i].tolist() == labels


def test_separate_clouds_are_found():
    g = torch.Generator().manual_seed(0)
    middle = 20 * torch.randn(6, 16, generator=g)
    x = (middle[:, None] + torch.randn(6, 12, 16, generator=g)).flatten(0, 1)[None]
    order = torch.randperm(72, generator=g)
    got = density_peaks(x[:, order], 6)
    truth = (order // 12).tolist()
    assert len({(t, c) for t, c in zip(truth, got.label[0].tolist())}) == 6
    assert {truth[i] for i in got.centre[0].tolist()} == set(range(6))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_equal_points_make_no_empty_cluster(count):
    got = density_peaks(torch.ones(2, 8, 4), count)
    assert got.centre.tolist() == [list(range(count))] * 2, "ties to the lower index"
    assert all(set(row) == set(range(count)) for row in got.label.tolist())


def test_far_points_do_not_underflow():
    x = 1e4 * torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(1))
    centres, labels, _ = peaks_reference(x[0], 5)
    got = density_peaks(x, 5)
    assert got.centre[0].tolist() == centres and got.label[0].tolist() == labels


@pytest.mark.parametrize("block_bytes", [1, 4 * 3 * 20 * 7, 2**20])
def test_blocks_do_not_change_the_clusters(block_bytes):
    x = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(2))
    whole, parts = density_peaks(x, 4), density_peaks(x, 4, block_bytes=block_bytes)
    assert torch.equal(whole.centre, parts.centre) and torch.equal(whole.label, parts.label)
    alone = density_peaks(x[1:2], 4)
    assert torch.equal(alone.label, whole.label[1:2])


def test_no_distance_block_above_its_limit():
    limit = inspect.signature(density_peaks).parameters["block_bytes"].default
    assert limit == kernels.BLOCK_BYTES == 64 * 2**20
    x = torch.randn(2, 900, 4)
    with Watch() as watch:
        got = density_peaks(x, 90, block_bytes=2**20)
    assert got.label.unique().numel() == 90
    assert watch.largest <= 2**20 < 2 * 4 * 900 * 900 and watch.waits == []


def test_means_of_groups():
    g = torch.Generator().manual_seed(3)
    values, weight = torch.randn(2, 9, 3, generator=g), torch.rand(2, 9, generator=g) + 0.1
    label = torch.stack([torch.arange(9) % 4, (torch.arange(9) * 2) % 4 // 2 * 3])
    got = group_means(values, label, 4, weight)
    for i in range(2):
        for c in set(label[i].tolist()):
            members = [j for j in range(9) if label[i, j] == c]
            mean = sum(weight[i, j] * values[i, j] for j in members) / sum(weight[i, j] for j in members)
            torch.testing.assert_close(got[i, c], mean)
    assert group_means(values.half(), label, 4, weight).dtype == torch.float16
    assert torch.equal(rows(values, torch.tensor([[8, 0], [1, 1]]))[1], values[1, [1, 1]])


@quick
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_rating_words_equal_a_loop(n, words, seed):
    g = torch.Generator().manual_seed(seed)
    visual, text = torch.randn(2, n, 4, generator=g), torch.randn(2, words, 4, generator=g)
    mask = torch.rand(2, words, generator=g) < 0.7
    got = visual_words(visual, text, mask)
    assert torch.equal(visual_words(visual, text, mask, block_bytes=1), got)
    for i in range(2):
        valid = [t for t in range(words) if mask[i, t]]
        share = dict.fromkeys(valid, 0.0)
        for v in visual[i].double():
            e = {t: math.exp(float(v @ text[i, t].double())) for t in valid}
            for t in valid:
                share[t] += e[t] / sum(e.values()) / n
        mean = sum(share.values()) / max(len(valid), 1)
        if any(abs(s - mean) < 1e-6 for s in share.values()) and len(valid) > 1:
            continue
        above = [t for t in valid if share[t] > mean + 1e-9] or valid
        assert got[i].nonzero().flatten().tolist() == above


def test_equal_words_all_rate_and_none_rates_none():
    text = torch.ones(2, 3, 4)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert torch.equal(visual_words(torch.randn(2, 5, 4), text, mask), mask)
    assert visual_words(torch.randn(2, 5, 4), text).all()
