"""What `patch_tower` accepts, refuses, reports and takes back."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

import tokenprune
from tests.tiny.models import FAMILIES
from tokenprune import TokenPruneError, patch_tower
from tokenprune.errors import BudgetError, PatchError, UnknownNameError, UnsupportedModelError

from ..test_patching import state_of
from .make import DEPTH, HF, PATCHES, TOWERS, blocks, open_clip_tower, pictures, tensors, timm_tower, tower


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_it_is_public():
    assert {"patch_tower", "TowerHandle"} <= set(tokenprune.__all__)


# -- taking back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("unmerge", [True, False])
def test_remove_restores_every_bit_and_hook(name, unmerge):
    model, x = tower(name), pictures()
    plain, before = tensors(model(x)), state_of(model)
    handle = patch_tower(model, r=6, unmerge=unmerge)
    merged = tensors(model(x))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(merged, plain))
    with handle.disabled():
        assert all(map(torch.equal, tensors(model(x)), plain))
    assert all(map(torch.equal, tensors(model(x)), merged))
    handle.remove()
    assert all(map(torch.equal, tensors(model(x)), plain)) and not handle.active
    assert state_of(model) == before
    handle.remove()
    assert state_of(model) == before
    assert handle.report.after == PATCHES - 6 * DEPTH, "it outlives the patch"


def test_context_manager_and_second_patch():
    model = tower("clip-projection")
    with patch_tower(model, r=2) as handle:
        assert handle.tower is model.vision_model and handle.active and handle.report is None
        for again in (model, model.vision_model):
            with pytest.raises(PatchError, match="already"):
                patch_tower(again, r=2)
    with patch_tower(model.vision_model, r=2):
        pass


def test_a_copy_of_a_patched_tower_says_so():
    with patch_tower(tower("clip"), r=2), pytest.raises(PatchError, match="copy"):
        copy.deepcopy(tower("clip"))(pictures())


def test_neither_activations_nor_towers_are_kept_alive():
    model = CLIPVisionModel(CLIPVisionConfig(**HF)).eval()
    inner = []
    hook = blocks(model)[1].mlp.register_forward_hook(lambda m, args, out: inner.append(weakref.ref(out)))
    patch_tower(model, r=2)
    out = model(pictures())
    hook.remove()
    gc.collect()
    with pytest.raises(PatchError, match="TowerHandle.*active"):  # though nobody holds the handle
        patch_tower(model, r=2)
    alive, state = weakref.ref(model), weakref.ref(out.last_hidden_state)
    assert inner[0]() is None
    del out, model, hook
    gc.collect()
    assert state() is None and alive() is None


# -- other ways through the blocks -------------------------------------------------------------------------------


def test_recorded_hidden_states_keep_their_shape():
    """Whether transformers installed its recorders before the patch or after it."""
    for first in (True, False):
        model = CLIPVisionModel(CLIPVisionConfig(**HF)).eval()
        if first:
            model(pictures(), output_hidden_states=True)
        with patch_tower(model, r=6) as handle:
            out = model(pictures(), output_hidden_states=True)
            assert [h.shape[1] for h in out.hidden_states] == [PATCHES + 1] * (DEPTH + 1)
            assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
            kinds = [len(set(map(tuple, h[0, 1:].tolist()))) for h in out.hidden_states]
            assert kinds == [PATCHES, *handle.report.per_block]


@pytest.mark.parametrize("name", ["timm", "open_clip"])
def test_intermediate_features(name):
    """Called without the tower's own forward, to the end and not."""
    model, x = tower(name), pictures()
    key = "image_intermediates"
    options = {"output_dict": True} if name == "timm" else {}
    with patch_tower(model, r=6) as handle:
        every = model.forward_intermediates(x, **options)[key]
        assert [tuple(t.shape) for t in every] == [(2, 32, 5, 5)] * DEPTH
        assert handle.report.per_block == [19, 13, 7]
        some = model.forward_intermediates(
            x, indices=[1], stop_early=True, intermediates_only=True, **options
        )[key]
        assert torch.equal(some[0], every[1]) and handle.report.per_block == [19, 13]
        assert torch.equal(model.forward_intermediates(x, **options)[key][2], every[2])


def test_wrappers_of_towers():
    timm_model = pytest.importorskip("open_clip.timm_model")
    wrapped = timm_model.TimmModel("vit_tiny_patch16_224", 16, 32, pool="token", proj="linear").eval()
    with patch_tower(wrapped, keep=0.5) as handle:
        assert wrapped(torch.randn(1, 3, 224, 224)).shape == (1, 16)
        assert handle.report.after == 98


def test_other_sizes_of_pictures():
    model = timm_tower(dynamic_img_size=True).eval()
    with patch_tower(model, keep=0.5) as handle:
        for side, before, after in ((40, 25, 13), (24, 9, 5), (40, 25, 13)):
            model(torch.randn(2, 3, side, side))
            assert (handle.report.before, handle.report.after) == (before, after)
    with patch_tower(model, r=6):
        with pytest.raises(BudgetError, match="9 patches"):
            model(torch.randn(1, 3, 24, 24))
        model(torch.randn(1, 3, 40, 40))


# -- the report --------------------------------------------------------------------------------------------------

REAL = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3}
SIZED = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**REAL, image_size=112, patch_size=8)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**REAL, image_size=112, patch_size=8)),
    "timm": lambda: timm_tower(embed_dim=192, num_heads=3, mlp_ratio=4, img_size=112),
    "open_clip": lambda: open_clip_tower().__class__(112, 8, 192, 3, 3, 4.0),
    "open_clip, own attention": lambda: open_clip_tower().__class__(
        112, 8, 192, 3, 3, 4.0, block_type="custom"
    ),
}


def counted(model: nn.Module, x: torch.Tensor) -> int:
    """FLOPs between the entry of the first block and the exit of the last."""
    counter, stack = FlopCounterMode(display=False), blocks(model)
    start = stack[0].register_forward_pre_hook(lambda *_: counter.__enter__() and None, prepend=True)
    end = stack[-1].register_forward_hook(lambda *_: counter.__exit__(None, None, None))
    try:
        with (
            torch.enable_grad()
        ):  # else torch's packed attention is one operation that the counter does not know
            model(x)
    finally:
        start.remove()
        end.remove()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("unmerge", [True, False])
@pytest.mark.skipif(
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu not in flop_registry,
    reason="this torch does not count the attention of processors",
)
def test_flops_agree_with_the_counter_of_torch(name, unmerge):
    model, x = SIZED[name]().eval(), torch.randn(2, 3, 112, 112)
    with patch_tower(model, keep=0.3, unmerge=unmerge) as handle:
        found = counted(model, x)
        report = handle.report
        with handle.disabled():
            plain = counted(model, x)
    assert report.before == 196 and report.pictures == 2
    assert report.flops == pytest.approx(found, rel=0.02)
    assert report.flops_unmerged == pytest.approx(plain, rel=0.02)
    assert report.flops < 0.75 * report.flops_unmerged
    assert "196 -> 59 patches" in report.summary()


# -- refusals: nothing was changed --------------------------------------------------------------------------------


def refused(model, error, match, **call):
    before = state_of(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error, match=match):
        patch_tower(model, **({"r": 2} | call))
    if before is not None:
        assert state_of(model) == before


def test_what_is_no_tower():
    refused(nn.Linear(2, 2), UnsupportedModelError, "Linear.*transformers.CLIPVisionModel")
    refused("openai/clip-vit-base-patch32", UnsupportedModelError, r"str.*tokenprune-vlm\[towers\]")
    refused(FAMILIES["llava"].build(), UnsupportedModelError, r"patch_tower\(model.model.vision_tower")
    refused(FAMILIES["qwen2_5_vl"].build(), UnsupportedModelError, "no vision tower that can be patched")


def test_numbers_and_names():
    model = tower("clip")
    refused(model, UnknownNameError, "did you mean tome", method="tomme")
    refused(model, UnknownNameError, "patch_model", method="flashvlm")
    refused(model, BudgetError, "at most half of them, 6; the same r in all 3 blocks can be 6", r=[6, 7, 7])
    refused(model, BudgetError, "can be 6", r=7)
    refused(model, BudgetError, "either r", r=None)
    refused(model, BudgetError, "name more layers", r=None, keep=2)
    refused(model, BudgetError, "layer=3", layers=[3])
    refused(model, TokenPruneError, "proportional=1", proportional=1)
    refused(model, TokenPruneError, "unmerge='no'", unmerge="no")
    with patch_tower(model, r=6):
        pass


def test_more_than_there_is_is_all_of_it_and_said_once(recwarn):
    model = tower("clip")
    with patch_tower(model, keep=60) as handle:
        for _ in range(2):
            model(pictures())
        assert handle.report.after == PATCHES
    assert [str(w.message)[:8] for w in recwarn if "patches" in str(w.message)] == ["keep=60,"]


def test_attention_that_takes_no_mask():
    model = CLIPVisionModel(CLIPVisionConfig(**HF)).eval()
    model.config._attn_implementation = "flash_attention_2"
    refused(model, UnsupportedModelError, "flash_attention_2.*proportional=False")
    patch_tower(model, r=2, proportional=False).remove()
    model.config._attn_implementation = "sdpa"
    with patch_tower(model, r=2):  # and where it is changed after the patch
        change = lambda *_: setattr(model.config, "_attn_implementation", "flex_attention")  # noqa: E731
        hook = blocks(model)[0].register_forward_hook(change)
        with pytest.raises(UnsupportedModelError, match="flex_attention"):
            model(pictures())
        hook.remove()


def test_blocks_without_a_place_between_attention_and_mlp():
    models = pytest.importorskip("timm.models.vision_transformer")
    refused(timm_tower(block_fn=models.ParallelScalingBlock), UnsupportedModelError, "ParallelScalingBlock")
    other = timm_tower()
    other.blocks[1].attn = nn.MultiheadAttention(32, 4, batch_first=True)
    refused(other, UnsupportedModelError, "Block with MultiheadAttention")
    scaled = open_clip_tower(block_type="custom", scaled_cosine_attn=True)
    refused(scaled, UnsupportedModelError, "cosine")


def test_masks_over_single_tokens():
    model = tower("timm")
    with patch_tower(model, r=2) as handle:
        with pytest.raises(PatchError, match=r"attn_mask.*handle.disabled"):
            model(pictures(), attn_mask=torch.zeros(26, 26))
        with handle.disabled():
            model(pictures(), attn_mask=torch.zeros(26, 26))
        model(pictures())


@pytest.mark.parametrize("name", ["clip", "timm", "open_clip"])
def test_gradient_checkpointing(name):
    model = copy.deepcopy(tower(name)).train()
    if name == "clip":
        for block in blocks(model):
            block.gradient_checkpointing, block._gradient_checkpointing_func = True, checkpoint
    else:
        model.set_grad_checkpointing()
    with patch_tower(model, r=2):
        with torch.enable_grad(), pytest.raises(PatchError, match="gradient checkpointing"):
            model(pictures().requires_grad_())
        model.eval()
        model(pictures())
