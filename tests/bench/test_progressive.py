"""The bench of `progressive` runs end to end on small clips and counts the products that are really made."""

import torch

from tests.methods.watch import Watch
from tokenprune import VisualTokens, get_method
from tokenprune.bench.progressive import SECONDS, measure, products
from tokenprune.bench.sizes import Size

GOALS = {"short": 1.0, "long": 1.5, "late": 1.15}
SMALL = Size("small", 1, 16, 0, 2, 2, 4, keep=0.2, kind="progressive", goals=tuple(GOALS.items()))


def test_runs_end_to_end():
    seen = []
    lines = measure(SMALL, 3, tick=lambda *step: seen.append(step), short=4, step=6, window=3)
    assert seen == [(i, 3, "small") for i in (1, 2, 3)]
    assert [line.goal for line in lines] == [1.0, None, None, None, 1.5, 1.15]
    assert lines[0].ratio.base_seconds == SECONDS and all(line.ratio.pairs == 3 for line in lines)


def test_the_products_are_those_of_the_method():
    """As many multiplications, memory and frames alike."""

    class Products(Watch):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.bmm.default and min(args[0].shape[1], args[1].shape[2]) > 1:
                self.done.append((tuple(args[0].shape), args[1].shape[2]))
            return super().__torch_dispatch__(func, types, args, kwargs)

    tokens = torch.randn(1, 10 * 16, 16, generator=torch.Generator().manual_seed(0))
    for window in (None, 3):
        method = get_method("progressive", keep=SMALL.keep, window=window)
        done = []
        for run in (
            lambda m=method: m.select(VisualTokens(tokens, (10, 4, 4), "video"), m.num_kept(160)),
            lambda w=window: products(tokens, SMALL, 10, w),
        ):
            with Products() as watch:
                watch.done = []
                run()
            done.append(sorted(watch.done))
        assert done[0] == done[1]
