"""Cache layers that keep fewer keys than the sequence has tokens, against lists of (logical index, key)."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, Qwen2Config
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticCache

from tokenprune.errors import PatchError
from tokenprune.hooks.cache import KeptMap, is_logical, make_logical, owner_of
from tokenprune.hooks.step import Step

quick = settings(max_examples=60, deadline=None, derandomize=True)
WINDOW = 5


class Owner:
    """Stands for the engine."""

    def __init__(self) -> None:
        self.active = True

    @property
    def busy(self) -> bool:
        return self.active

    def check_cache_use(self) -> None:
        if not self.active:
            raise PatchError("not active")

    def __deepcopy__(self, memo):
        return self


class Model:
    """What a layer should hold: per row the (logical index, value) of every key that was not dropped."""

    def __init__(self, batch: int, window: int | None) -> None:
        self.rows: list[list[tuple[int, float]]] = [[] for _ in range(batch)]
        self.length, self.window = 0, window

    def visible(self, row: int, query: int) -> dict[int, float]:
        """Keys that a token at logical `query` may see."""
        low = 0 if self.window is None else query - self.window + 1
        return {i: v for i, v in self.rows[row] if low <= i <= query}


def run(
    cache,
    model: Model,
    owner: Owner,
    tokens: int,
    keep: list[list[int]] | None,
    value: list[float],
    text_behind=0,
):
    """One forward of `tokens` logical tokens with the real Step; returns its mask columns and the keys given back."""
    batch = len(model.rows)
    step = Step(tokens, batch, owner, "sdpa")
    if keep is not None:
        alive = torch.zeros(batch, tokens, dtype=torch.bool)
        for row, kept in enumerate(keep):
            alive[row, kept] = True
        step.cut(alive, [len(k) for k in keep])
        step.layout = SimpleNamespace(text_behind=text_behind)
    past = model.length
    # the mask that transformers would make for the logical sequence
    layer = cache.layers[0] if cache.layers else cache.layer_class_to_replicate()
    kv_length, offset = layer.get_mask_sizes(tokens)
    q = torch.arange(past, past + tokens)[:, None]
    k = torch.arange(offset, offset + kv_length)[None]
    allowed = k <= q
    if model.window is not None:
        allowed &= k > q - model.window
    mask = step.enter_layer(cache, 0, allowed.expand(batch, 1, -1, -1), torch.device("cpu"))
    values = torch.tensor(value)[:, None] + torch.arange(past, past + tokens) / 1000
    if step.index is not None:
        values = values.gather(1, step.index.clamp(min=0)).masked_fill(step.index < 0, float("nan"))
    states = values[:, None, :, None].expand(-1, 2, -1, 3)
    keys, _ = cache.layers[0].update(states, states.clone())
    for row in range(batch):
        for i in range(tokens) if keep is None else sorted(keep[row]):
            model.rows[row].append((past + i, float(torch.tensor(value[row]) + (past + i) / 1000)))
    model.length += tokens
    return step, mask, keys


def check(step: Step, mask, keys, model: Model, tokens: int) -> None:
    """Each physical query sees exactly the keys that its logical token may see."""
    past = model.length - tokens
    assert mask.shape[-1] == keys.shape[-2]
    for row in range(len(model.rows)):
        logical = range(tokens) if step.index is None else step.index[row].tolist()
        for place, i in enumerate(logical):
            if i < 0:
                continue
            seen = keys[row, 0, mask[row, 0, place], 0].tolist()
            wanted = list(model.visible(row, past + i).values())
            assert seen == pytest.approx(wanted)


def subset(draw, n: int) -> list[int]:
    return sorted(draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n)))


@pytest.mark.parametrize("window", [None, WINDOW])
@quick
@given(data=st.data())
def test_any_history_of_cuts_and_steps(window, data):
    draw = data.draw
    batch, owner = draw(st.integers(1, 2)), Owner()
    cache = DynamicCache()
    if window is not None:
        cache.layer_class_to_replicate = lambda: DynamicSlidingWindowLayer(sliding_window=WINDOW)
    model = Model(batch, window)
    values = [float(r + 1) for r in range(batch)]
    for _ in range(draw(st.integers(1, 4))):
        tokens = draw(st.integers(1, 8))
        cut = draw(st.booleans()) and tokens > 1
        keep = [subset(draw, tokens) for _ in range(batch)] if cut else None
        step, mask, keys = run(cache, model, owner, tokens, keep, values)
        check(step, mask, keys, model, tokens)
        layer = cache.layers[0]
        assert layer.get_seq_length() == model.length
        action = draw(st.sampled_from(["nothing", "reorder", "repeat", "select", "copy"]))
        if action == "nothing":
            continue
        if action == "copy":
            cache = copy.deepcopy(cache)
            continue
        if action == "repeat":
            order = [r for r in range(len(model.rows)) for _ in range(2)]
            cache.batch_repeat_interleave(2)
            if len(order) > 4:
                order = order[:3]
                cache.batch_select_indices(torch.arange(3))
        else:
            order = [draw(st.integers(0, len(model.rows) - 1)) for _ in model.rows]
            move = cache.reorder_cache if action == "reorder" else cache.batch_select_indices
            move(torch.tensor(order))
        model.rows = [list(model.rows[i]) for i in order]
        values = [values[i] for i in order]
        batch = len(order)
        assert is_logical(cache.layers[0]) == (owner_of(cache) is owner)


def pruned(window: int | None = None, batch: int = 1):
    owner, cache = Owner(), DynamicCache()
    if window is not None:
        cache.layer_class_to_replicate = lambda: DynamicSlidingWindowLayer(sliding_window=window)
    model = Model(batch, window)
    run(cache, model, owner, 10, [[0, 1, 4, 8, 9]] * batch, [1.0] * batch)
    return cache, model, owner


@pytest.mark.parametrize("window", [None, 20])
def test_crop_takes_the_tail_and_never_reaches_into_the_image(window):
    cache, model, owner = pruned(window)
    for _ in range(3):
        run(cache, model, owner, 1, None, [1.0])
    cache.crop(-2)
    assert cache.get_seq_length() == 11
    model.rows[0], model.length = model.rows[0][:-2], 11
    step, mask, keys = run(cache, model, owner, 3, None, [1.0])
    check(step, mask, keys, model, 3)
    with pytest.raises(PatchError, match="behind its last image"):
        cache.crop(-5)
    with pytest.raises(PatchError, match="negative"):
        cache.crop(2)
    assert cache.get_seq_length() == 14


@pytest.mark.parametrize("window", [None, WINDOW])
def test_reset_starts_a_new_conversation(window):
    cache, _, owner = pruned(window)
    cache.reset()
    assert cache.get_seq_length() == 0
    model = Model(1, window)
    for tokens, keep in ((7, [[0, 3, 6]]), (1, None), (4, [[1, 2]])):
        step, mask, keys = run(cache, model, owner, tokens, keep, [1.0])
        check(step, mask, keys, model, tokens)


def test_a_layer_shares_its_state_with_the_one_it_replaces():
    cache, _, owner = pruned()
    layer = cache.layers[0]
    assert isinstance(layer, DynamicLayer) and layer.keys.shape[-2] == 5 and layer.logical_length == 10
    assert make_logical(cache, 0, owner, None) is layer
    assert layer.get_mask_sizes(3) == (13, 0)
    owner.active = False
    with pytest.raises(PatchError, match="not active"):
        layer.update(torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3))


def test_other_kinds_of_cache_are_refused():
    config = Qwen2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, use_sliding_window=True,
        sliding_window=4, max_window_layers=0,
    )  # fmt: skip
    with pytest.raises(PatchError, match=r"StaticSlidingWindowLayer.*default dynamic cache"):
        make_logical(StaticCache(config=config, max_cache_len=8), 0, Owner(), None)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_a_crop_may_reach_into_the_text_behind_the_image(window):
    """Of ten tokens 3, 5 and 6 stay of an image at 2 to 6; 7 to 9 are text, and so are two steps."""
    cache = DynamicCache()
    if window is not None:
        cache.layer_class_to_replicate = lambda: DynamicSlidingWindowLayer(sliding_window=WINDOW)
    owner, model = Owner(), Model(1, window)
    kept = [[0, 1, 3, 5, 6, 7, 8, 9]]
    run(cache, model, owner, 10, kept, [1.0], text_behind=3)
    run(cache, model, owner, 2, None, [1.0])
    layer = cache.layers[0]
    if window is not None:
        layer.activate_past_recording()
    layer.crop(-4)
    model.rows[0], model.length = model.rows[0][:-4], 8
    assert layer.get_seq_length() == 8
    if window is None:
        step, mask, keys = run(cache, model, owner, 1, None, [1.0])
        check(step, mask, keys, model, 1)
    with pytest.raises(PatchError, match="behind its last image"):
        layer.crop(-3)


def test_columns_by_hand():
    kept = KeptMap(torch.tensor([[-1, 0, 4], [1, 2, 3]]), 6, True)
    assert kept.columns(3, 3).tolist() == [[-1, 0, 4], [1, 2, 3]]
    assert kept.columns(5, 5).tolist() == [[-1, 0, 4, 6, 7], [1, 2, 3, 6, 7]]
    assert kept.columns(5, 3).tolist() == [[4, 6, 7], [3, 6, 7]]
    rows = torch.tensor([1, 1])
    assert kept.select(rows).columns(4, 2).tolist() == [[3, 6], [3, 6]]
    assert kept.select(rows) is kept.select(rows), "layers that share a map go on sharing it"
    assert kept.repeat(2).kept[:, 0].tolist() == [-1, -1, 1, 1]
