"""Methods that start from the tower's attention, on a tower of each kind: CLIP, SigLIP, Qwen's and InternVL's."""

from __future__ import annotations

import pytest
import torch

from tests.hooks import towers
from tests.hooks.spy import Spy
from tests.tiny.models import FAMILIES
from tokenprune import VisualTokens, get_method, patch_model
from tokenprune.budget import count

MODELS = [("llava", "batch"), ("llava_onevision", "single"), ("qwen2_5_vl", "multi"), ("internvl", "batch")]
SHARE = {"vispruner": 0.5, "visionzip": 1 - 0.15625, "prumerge": 1.0, "holov": 1.0}
"""Of a budget, what goes to the most attended tokens."""
HYPER = {"prumerge": {"budget": "fixed"}, "holov": {"crops": 1, "alpha": 0.0}}
KEEP = 0.4


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name,kind", MODELS)
@pytest.mark.parametrize("method", SHARE)
def test_the_most_attended_tokens_of_the_eager_tower_stay(method, name, kind, monkeypatch):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    if method == "prumerge" and name == "llava":  # reads the last block, also where the model does not
        monkeypatch.setitem(towers.BLOCK, name, 2)
    wanted = [s[:, 0] for s in towers.expected(name, model, inputs)["saliency"]]
    plain = model(**inputs).logits
    with patch_model(model, method, keep=KEEP, **HYPER.get(method, {})) as handle:
        pruned = model(**inputs).logits
        images = handle.report.images
    assert len(images) == len(wanted) > 0
    for image, saliency in zip(images, wanted, strict=True):
        assert image.after == count(KEEP, image.before)
        torch.testing.assert_close(image.scores, saliency, rtol=1e-4, atol=1e-6)
        first = int(SHARE[method] * image.after + 0.5 - (method == "vispruner") / 2)
        order = image.scores.argsort(descending=True, stable=True)  # a separator may equal a patch
        assert set(order[:first].tolist()) <= set(image.kept)
    assert float((plain - pruned).abs().max()) > 1e-3


@pytest.mark.parametrize("name,kind", MODELS)
@pytest.mark.parametrize("method,hyper", [
    ("vispruner", {}), ("visionzip", {}), ("visionzip", {"compat": "official"}), ("prumerge", {}),
    ("prumerge_plus", {}), ("prumerge_plus", {"budget": "fixed"}), ("holov", {"crops": 3}),
])  # fmt: skip
def test_the_model_keeps_what_the_method_alone_would(method, hyper, name, kind):
    """The method on each image as the hooks show it, by itself, against the report and what the decoder receives."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    reducer = get_method(method, keep=KEEP, **hyper)
    spy = Spy(fields=tuple(reducer.needs))
    with patch_model(model, spy):
        model(**inputs)
    seen = [(group, s) for group in spy.take() for s in range(group.shape[0])]
    received = []
    text = model.model.get_submodule("language_model")
    hook = text.layers[0].self_attn.register_forward_pre_hook(
        lambda m, args, kwargs: received.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    with patch_model(model, reducer) as handle:
        model(**inputs)
        images = handle.report.images
    hook.remove()
    for image in images:
        same_size = [alone(group, s) for group, s in seen if group.shape[1] == image.before]
        answers = [(one, reducer.select(one, image.after)) for one in same_size]
        [(one, answer)] = [x for x in answers if torch.allclose(x[1].scores[0], image.scores, atol=1e-6)]
        assert answer.keep[0].nonzero().flatten().tolist() == image.kept
        features = one.features if answer.features is None else answer.features
        inside = text.layers[0].input_layernorm(features[0, image.kept])
        apart = (inside.unsqueeze(1) - received[0][image.row]).abs().amax(2)
        assert float(apart.amin(1).max()) < 1e-4, "each kept or merged token reaches the decoder"


def alone(group: VisualTokens, s: int) -> VisualTokens:
    """One image of a group."""
    fields = vars(group).items()
    rows = {k: v[s : s + 1] if isinstance(v, torch.Tensor) and k != "coords" else v for k, v in fields}
    return VisualTokens(**rows)
