"""The spec's numeric case F1, simulated with the method and the kernels alone, and `attend` against plain Python."""

import math

import pytest
import torch

from tokenprune import get_method
from tokenprune.kernels.decode import dense_step

L, H, D, S, VISUAL = 4, 2, 4, 14, list(range(2, 12))


def keys(layer):
    s = torch.arange(S, dtype=torch.float64)
    rows = [[torch.cos(0.45 * s + 0.3 * h), torch.sin(0.45 * s + 0.3 * h), torch.cos(0.9 * s + 0.2 * layer),
             torch.sin(0.9 * s + 0.2 * layer)] for h in range(H)]  # fmt: skip
    return torch.stack([torch.stack(r, -1) for r in rows])[None]


def query(layer, step):
    c = 4.2 + 1.37 * step
    rows = [[math.cos(0.45 * c + 0.3 * h), math.sin(0.45 * c + 0.3 * h), math.cos(0.9 * c + 0.2 * layer + 0.15 * h),
             math.sin(0.9 * c + 0.2 * layer + 0.15 * h)] for h in range(H)]  # fmt: skip
    return 2 * torch.tensor(rows, dtype=torch.float64)[None, :, None]


@pytest.mark.parametrize("heads", ["mean", "max"])
@pytest.mark.parametrize(("step", "chosen"), [(0, [1, 2, 3]), (1, [3, 4, 5])])
def test_f1(heads, step, chosen):
    method = get_method("fixation", keep=3, k_min=1, focal=(1,), heads=heads)
    k = keys(1)
    _, weights = dense_step(query(1, step), k, k, 0.5)
    seen = weights[:, :, VISUAL]
    mask = method.attend(seen, torch.ones(1, len(VISUAL), dtype=torch.bool), {"groups": torch.zeros(1, H)})
    assert mask[0].nonzero().flatten().tolist() == chosen


@pytest.mark.parametrize("heads", ["mean", "max"])
@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize(("keep", "k_min"), [(0.3, 1), (0.05, 4), (5, 1), (1.0, 1)])
def test_attend_by_hand(heads, per_group, keep, k_min):
    b, h, groups, v = 3, 6, 2, 11
    g = torch.Generator().manual_seed(3)
    attention = torch.rand(b, h, v, generator=g)
    valid = torch.ones(b, v, dtype=torch.bool)
    valid[1, 7:] = valid[2, :] = False
    valid[2, 3] = True
    method = get_method("fixation", keep=keep, k_min=k_min, heads=heads, per_group=per_group)
    mask = method.attend(attention, valid, {"groups": torch.zeros(b, groups)})
    for row in range(b):
        n = int(valid[row].sum())
        count = min(n, max(k_min, keep if isinstance(keep, int) else math.ceil(keep * n)))
        for group in range(groups if per_group else 1):
            members = range(group * 3, group * 3 + 3) if per_group else range(h)
            merge = (lambda x: sum(x) / len(x)) if heads == "mean" else max
            score = [merge([float(attention[row, m, i]) for m in members]) for i in range(v)]
            order = sorted((i for i in range(v) if valid[row, i]), key=lambda i: (-round(score[i], 6), i))
            got = mask[row, group] if per_group else mask[row]
            assert got.nonzero().flatten().tolist() == sorted(order[:count])


def test_counts_and_focal_layers():
    method = get_method("fixation")
    assert method.num_read(4900) == 245 and method.num_read(100) == 32 and method.num_read(20) == 20
    assert method.focal_layers(28) == (7, 14, 21)
    assert get_method("fixation", focal=1).focal_layers(28) == (14,)
    assert get_method("fixation", focal=(0.5, 3)).focal_layers(28) == (3, 14)
    assert get_method("fixation", focal=4).focal_layers(4) == (0, 1, 2, 3)
    assert method.cut_layers(28) == () and method.schedule(100, 28) == {} and method.num_kept(100, 28) == 100
