"""The spec's numeric case F1, simulated with the method and the kernels alone, and `attend` against plain Python."""

import math

import pytest
import torch

from tests.kernels.test_dilation import batch, near, page
from tokenprune import get_method
from tokenprune.errors import TokenPruneError
from tokenprune.kernels.decode import dense_step

from .watch import Watch, host_reads

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


# -- dilation ---------------------------------------------------------------------------------------------------

SHAPES = [[(1, 1, 5, 6, True), (1, 1, 4, 4, False)], [(2, 1, 4, 5, False)], [(1, 1, 3, 3, True)]]
FRAMES = [[(1, 3, 3, 4, False)], [(1, 1, 6, 6, False)]]


class Reader:
    """One row and one focal layer, as the docstring says it, in plain Python."""

    def __init__(self, seen, k, radius, refresh, theta):
        self.seen, self.k, self.radius, self.refresh, self.theta = seen, k, radius, refresh, theta
        self.clip = any(t > 0 for (_, _, t), _, _ in seen)
        self.visits, self.last, self.recent, self.captured = 0, None, set(), None

    def read(self):
        everything = set(range(len(self.seen)))
        if self.last is None or self.visits % self.refresh == 0 or self.captured < self.theta or self.clip:
            return everything
        return near(self.seen, self.last, self.radius) | self.recent

    def choose(self, score):
        read = self.read()
        chosen = set(sorted(read, key=lambda i: (-score[i], i))[: self.k])
        full = len(read) == len(self.seen)
        self.captured = sum(score[i] for i in chosen) / sum(score[i] for i in read)
        self.recent = chosen if full else self.recent | chosen
        self.last, self.visits = chosen, self.visits + 1
        return read, chosen


def wandering(seen, step, heads, seed):
    """A softmax row that looks around a place which moves on, (H, V)."""
    g = torch.Generator().manual_seed(seed * 1000 + step)
    centre = (seed * 5 + step * 2) % len(seen)
    sheet, y, x = seen[centre]
    far = [abs(v - y) + abs(u - x) if s == sheet else 9 for s, v, u in seen]
    logits = -0.8 * torch.tensor(far, dtype=torch.float32) + 0.7 * torch.randn(heads, len(seen), generator=g)
    return logits.softmax(-1) * 0.6  # the rest is the text's


@pytest.mark.parametrize("shapes", [SHAPES, FRAMES], ids=["pages", "clip"])
@pytest.mark.parametrize("heads", ["mean", "max"])
@pytest.mark.parametrize(
    ("radius", "refresh", "theta"), [(1, 4, 0.0), (2, 8, 0.5), (1, 100, 0.62), (2, 100, 0.55), (1, 3, 1.0)]
)
def test_dilation_by_hand(shapes, heads, radius, refresh, theta):
    method = get_method(
        "fixation", keep=0.15, k_min=3, heads=heads, dilate=radius, refresh=refresh, theta=theta
    )
    pages = [page(images) for images in shapes]
    coords = batch([c for c, _ in pages])
    valid = coords[..., 0] >= 0
    state = {"groups": torch.zeros(len(pages), 2), "coords": coords}
    readers = [Reader(s, method.num_read(len(s)), radius, refresh, theta) for _, s in pages]
    reads = []
    for step in range(12):
        if step == 7:  # rows change places, as beams do
            order = torch.arange(len(pages)).roll(1)
            state = {k: v[order] for k, v in state.items()}
            valid = valid[order]
            readers, pages = [readers[i] for i in order], [pages[i] for i in order]
        attention = torch.zeros(len(pages), 4, valid.shape[1])
        for row, (_, seen) in enumerate(pages):
            attention[row, :, : len(seen)] = wandering(seen, step, 4, len(seen))
        wanted = method.candidates(valid, state)
        assert (wanted is None) == (step == 0)
        shown = attention if wanted is None else attention * wanted[:, None]
        chosen = method.attend(shown, valid, state)
        for row, reader in enumerate(readers):
            of_head = attention[row].mean(0) if heads == "mean" else attention[row].amax(0)
            read, pick = reader.choose(of_head.tolist())
            if wanted is not None:
                assert set(wanted[row].nonzero().flatten().tolist()) == read
                reads += [] if reader.clip else [len(read) < len(reader.seen)]
            assert set(chosen[row].nonzero().flatten().tolist()) == pick
    assert any(reads) == (theta < 1.0)
    if refresh == 100 and heads == "mean":
        assert not all(reads)  # some rows looked in full because they had captured too little


def test_groups_read_the_union_of_their_choices():
    method = get_method("fixation", keep=2, k_min=1, per_group=True, dilate=1, theta=0.0)
    coords, seen = page([(1, 1, 7, 7, False)])
    state = {"groups": torch.zeros(1, 2), "coords": torch.tensor([coords])}
    attention = torch.full((1, 4, 49), 1e-3)
    attention[0, :2, [8, 9]] = attention[0, 2:, [46, 47]] = 0.4
    valid = torch.ones(1, 49, dtype=torch.bool)
    assert method.candidates(valid, state) is None
    chosen = method.attend(attention, valid, state)
    assert [c.nonzero().flatten().tolist() for c in chosen[0]] == [[8, 9], [46, 47]]
    wanted = method.candidates(valid, state)
    assert set(wanted[0].nonzero().flatten().tolist()) == near(seen, {8, 9, 46, 47}, 1)


def test_dilation_that_covers_all_is_no_dilation():
    coords, seen = page([(1, 1, 5, 6, True)])  # one picture: of several, only those looked at are covered
    valid = torch.ones(1, len(seen), dtype=torch.bool)
    plain = get_method("fixation", keep=0.2, k_min=1)
    for wide in ({"dilate": 1, "refresh": 1}, {"dilate": 1, "theta": 1.0}, {"dilate": 9, "theta": 0.0}):
        method = get_method("fixation", keep=0.2, k_min=1, **wide)
        state = {"groups": torch.zeros(1, 1), "coords": torch.tensor([coords])}
        for step in range(6):
            attention = wandering(seen, step, 2, 3)[None]
            wanted = method.candidates(valid, state)
            assert wanted is None or wanted.all()
            assert torch.equal(method.attend(attention, valid, state), plain.attend(attention, valid, {}))


def test_nothing_waits_for_the_device(monkeypatch):
    method = get_method("fixation", keep=0.2, k_min=1, dilate=2, per_group=True)
    totals = []
    for rows in (1, 4):
        coords = batch([page(SHAPES[0])[0]] * rows)
        valid, attention = coords[..., 0] >= 0, torch.rand(rows, 4, coords.shape[1])
        state = {"groups": torch.zeros(rows, 2), "coords": coords}
        with monkeypatch.context() as patch, Watch() as watch:
            host_reads(patch)
            for _ in range(3):
                method.candidates(valid, state)
                method.attend(attention, valid, state)
        assert watch.waits == []
        totals.append(watch.total)
    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    ("field", "values"),
    [("dilate", (-1, 1.5, True, "x")), ("refresh", (0, 2.0, None)), ("theta", (-0.1, 1.1, math.nan, "x", True))],
)  # fmt: skip
def test_bad_dilation_is_named(field, values):
    for value in values:
        with pytest.raises(TokenPruneError, match=field):
            get_method("fixation", **{field: value})
