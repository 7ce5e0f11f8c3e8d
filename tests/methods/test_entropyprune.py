"""EntropyPrune against the numbers of its specification; tests/kernels/test_entropy.py has the score itself."""

from __future__ import annotations

import math

import pytest
import torch

from tokenprune import budget
from tokenprune.errors import BudgetError, TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from ..kernels.test_entropy import E1, case_e1, case_e2, reference
from .make import LAYOUTS, make_tokens


def tokens_of(queries: torch.Tensor) -> VisualTokens:
    return VisualTokens(torch.zeros(queries.shape[0], queries.shape[2], 2), None, queries=queries.float())


def kept(method, tokens: VisualTokens, keep: int) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in method.select(tokens, keep).keep]


def test_e1_the_paper():
    method, tokens = get_method("entropyprune"), tokens_of(case_e1())
    assert kept(method, tokens, 2) == [[0, 2]] and kept(method, tokens, 3) == [[0, 2, 7]]
    scores = method.select(tokens, 2).scores[0] / math.log(4)
    torch.testing.assert_close(scores, torch.tensor(E1), atol=2e-6, rtol=0)


@pytest.mark.parametrize("hyper", [{"compat": "official"}, {"normalize": False}])
def test_e2_the_released_code_ranks_a_e_c_b_d(hyper):
    method, tokens = get_method("entropyprune", **hyper), tokens_of(case_e2())
    order = [0, 4, 2, 1, 3]
    assert [kept(method, tokens, k)[0] for k in range(1, 6)] == [sorted(order[:k]) for k in range(1, 6)]


def test_e2_the_paper_knows_no_scale():
    scores = get_method("entropyprune").select(tokens_of(case_e2()), 1).scores[0]
    torch.testing.assert_close(scores[[0, 2, 3, 4]], scores[:1].expand(4), atol=1e-6, rtol=0)
    assert scores[1] < 1e-5


def test_equal_scores_go_to_the_lower_index():
    a = case_e2()[:, :, :1]
    tokens = tokens_of(a.expand(-1, -1, 6, -1))
    assert kept(get_method("entropyprune"), tokens, 4) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("low", "high", "sign"), [(0.5, 4.0, -1), (1e-4, 2e-3, 1)])
def test_the_released_code_ranks_by_the_size_of_the_queries(low, high, sign):
    """tau (S - ln tau) rises with tau = tr G up to e^(S - 1), about 9 here, and falls above it."""
    g = torch.Generator().manual_seed(0)
    scale = torch.linspace(low, high, 200)[torch.randperm(200, generator=g)]
    q = torch.randn(1, 32, 200, 128, generator=g) * scale[:, None]
    tokens, size = tokens_of(q), q.square().sum((1, 3))[0]

    def spearman(**hyper) -> float:
        scores = get_method("entropyprune", **hyper).select(tokens, 9).scores[0]
        ranks = torch.stack([x.argsort().argsort().double() for x in (scores, size)])
        return float(torch.corrcoef(ranks)[0, 1])

    assert sign * spearman(compat="official") > 0.999 and abs(spearman()) < 0.25


@pytest.mark.parametrize("hyper", [{}, {"compat": "official"}])
def test_agrees_with_a_float64_loop(hyper):
    tokens = make_tokens(LAYOUTS["wide"], images=3)
    scores = reference(tokens.queries, normalize=not hyper)
    order = scores.argsort(dim=1, descending=True, stable=True)
    for keep in (1, 8, 20, 33):
        expected = [sorted(row) for row in order[:, :keep].tolist()]
        assert kept(get_method("entropyprune", **hyper), tokens, keep) == expected


RELEASED = {  # E3: (layers, R, n, K) -> tokens after the cut in the released code, which rounds down
    (32, 192, 576, 2): 166,
    (32, 128, 576, 2): 98,
    (32, 64, 576, 2): 29,
    (32, 32, 576, 1): 14,
    (32, 320, 2880, 2): 149,
}


@pytest.mark.parametrize(("case", "released"), RELEASED.items())
def test_e3_budgets(case, released):
    layers, average, n, layer = case
    plan = get_method("entropyprune", keep=average, layer=layer).schedule(n, layers)
    assert list(plan) == [layer] and 0 <= plan[layer] - released <= 1
    assert int((layers * average - layer * n) / (layers - layer)) == released
    ours, theirs = (
        abs(budget.layer_average({layer: k}, n, layers) - average) for k in (plan[layer], released)
    )
    assert ours <= theirs, "rounding to nearest comes nearer to what was asked"
    assert (plan[layer] == released) == (case != (32, 64, 576, 2)), "29.87: the only one that differs"


def test_e3_below_the_floor():
    method = get_method("entropyprune", keep=32)
    assert method.floor(576, 32) == (2 * 576 + 30) / 32
    with pytest.raises(BudgetError, match=r"36\.9"):
        method.schedule(576, 32)
    assert get_method("entropyprune", keep=32, budget="after").schedule(576, 32) == {2: 32}
    assert get_method("entropyprune", keep=320, budget="after").schedule(2880, 32) == {2: 320}


def test_shares_of_qwen():
    """L = 28, K = 1: the authors' 25 % and 12.5 % are layer averages of 22.2 % and 9.3 % after the cut."""
    for keep, after in ((0.25, 0.2222), (0.125, 0.0926)):
        plan = get_method("entropyprune", layer=1, keep=keep).schedule(10_000, 28)
        assert plan[1] / 10_000 == pytest.approx(after, abs=2e-4)


def test_what_is_refused():
    for hyper in ({"layer": 0}, {"layer": 1.5}, {"layer": True}, {"budget": "before"}):
        with pytest.raises(BudgetError, match=next(iter(hyper))):
            get_method("entropyprune", **hyper)
    for hyper in ({"compat": "paper"}, {"solver": "svd"}):
        with pytest.raises(TokenPruneError, match=next(iter(hyper))):
            get_method("entropyprune", **hyper)
    with pytest.raises(TokenPruneError, match="queries"):
        get_method("entropyprune").select(VisualTokens(torch.zeros(1, 4, 2), None), 2)
