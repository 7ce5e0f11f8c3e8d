"""The tower bench runs on a tower of no size; nothing is said about its times."""

from tokenprune.bench.run import bench
from tokenprune.bench.sizes import SIZES, Size
from tokenprune.bench.tower import VARIANTS, build

TINY = Size("micro-tower", 3, 32, 48, 4, 4, 6, text=0, kind="tower")


def test_runs_end_to_end():
    seen = []
    result = bench([TINY], pairs=2, tick=lambda *step: seen.append(step))
    assert seen == [(1, 2, "micro-tower"), (2, 2, "micro-tower")]
    whats = [line.what for line in result.lines]
    assert whats[0] == "unpatched again" and len(whats) == 1 + len(VARIANTS)
    shares = [float(what.rpartition("(")[2].split()[0]) for what in whats[1:]]
    assert 1 > shares[0] > shares[1] == shares[2] == shares[3] > 0
    assert all(line.ratio.pairs == 2 and line.base == "unpatched" for line in result.lines)


def test_sizes_are_those_of_vit_b():
    sizes = [s for s in SIZES.values() if s.kind == "tower"]
    assert [s.visual for s in sizes] == [196, 576] and all(s.rounds >= 20 for s in sizes)
    model = build(Size("one", 1, 768, 3072, 12, 12, 14, kind="tower"))
    block = sum(p.numel() for p in model.encoder.layers[0].parameters())
    assert 12 * block == 85_054_464  # what ViT-B has in its blocks
