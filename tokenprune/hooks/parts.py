"""The parts of a vision-language model that the mechanism touches, found by role and never by class."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..errors import PatchError
from ..families import REFUSED, Family, family_of, refusal, refused
from .cache import state_layers


@dataclass(eq=False)
class Parts:
    """What was found in one model."""

    model: nn.Module  # what the user patched
    composite: nn.Module  # merges image features into the text and calls the text model
    text: nn.Module  # the module that owns `layers`
    layers: nn.ModuleList  # decoder layers
    tower: nn.Module | None
    blocks: nn.ModuleList | None  # tower blocks
    projector: nn.Module | None
    placeholders: dict[str, int]  # modality -> token id of one visual token
    family: Family
    first_shared: int  # first layer that reuses another layer's keys; cuts must lie below
    lenders: dict[int, int] = field(default_factory=dict)  # layer from there on -> the one whose keys it reads
    states: frozenset[int] = frozenset()  # layers that carry a state from token to token instead of keys
    twins: tuple[nn.ModuleList, ...] = ()  # blocks of further towers, equal to `blocks`

    @property
    def config(self) -> Any:
        return self.composite.config

    @property
    def text_config(self) -> Any:
        return self.text.config

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def has_cls(self) -> bool:
        """The tower puts a class token before its patches."""
        names = ("class_embedding", "cls_token")
        return self.tower is not None and any(
            n.split(".")[-1] in names for n, _ in self.tower.named_parameters()
        )

    def block_taps(self, index: int) -> list[nn.Module]:
        """Modules of one tower block, in every tower, that may call the attention interface."""
        towers = [] if self.blocks is None else [self.blocks, *self.twins]
        return [module for blocks in towers for module in blocks[index].modules()]

    def withheld(self, field: str) -> str | None:
        """Why the tower cannot serve a field, None where it can."""
        if self.family.resampled:
            return "each of its tokens is read from the whole picture by a resampler and shows no place of its own"
        if field == "vision_features":
            return "no projector was found" if self.projector is None else None
        if self.tower_attention:
            return None
        return f"{type(self.tower).__name__} does not use transformers' attention interface"

    @property
    def tower_attention(self) -> bool:
        """The tower's attention goes through transformers' interface, where it can be observed."""
        import sys

        if self.blocks is None:
            return False
        sources = {type(m).__module__ for m in self.blocks.modules()}
        return any(hasattr(sys.modules.get(s), "ALL_ATTENTION_FUNCTIONS") for s in sources)


def find_parts(model: nn.Module) -> Parts:
    """Locate the parts, or raise `UnsupportedModelError` naming the class, what was looked for and what works."""
    config, name = getattr(model, "config", None), type(model).__name__
    if error := refused(config, name):
        raise error
    composite = getattr(model, "base_model", model)
    if config is None or not hasattr(composite, "get_image_features"):
        raise refusal(
            name, "it has no get_image_features, so it is not a vision-language model of transformers"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise refusal(name, "it is an encoder-decoder; the images go to the encoder")

    family = family_of(composite.config)
    text_root = family.find(composite, family.text_names)
    if text_root is None:
        raise refusal(name, f"no text model was found (looked for {', '.join(family.text_names)})")
    text = _owner_of_layers(text_root)
    if text is None:
        raise refusal(name, "its text model has no ModuleList named `layers`")
    text_config = text.config
    if getattr(text_config, "cross_attention_layers", None):
        raise refusal(name, REFUSED["mllama"])

    placeholders = {m: family.placeholder_id(composite.config, m) for m in family.modalities}
    found = {m: i for m, i in placeholders.items() if i is not None}
    if not found:
        raise refusal(name, "its config names no image_token_id, so images have no place in the sequence")

    tower = family.find(composite, family.tower_names)
    shared = getattr(text_config, "num_kv_shared_layers", 0) or 0
    return Parts(
        model=model,
        composite=composite,
        text=text,
        layers=text.layers,  # type: ignore[arg-type]
        tower=tower,
        blocks=_blocks(tower),
        projector=family.find(composite, family.projector_names),
        placeholders=found,
        family=family,
        first_shared=len(text.layers) - shared,  # type: ignore[arg-type]
        lenders=_lenders(text_config, len(text.layers), shared),  # type: ignore[arg-type]
        states=state_layers(text_config),
        twins=tuple(b for n in family.twin_names if (b := _blocks(family.find(composite, (n,)))) is not None),
    )


def _lenders(text_config: Any, layers: int, shared: int) -> dict[int, int]:
    """For each of the last `shared` layers the last one of its kind that has keys of its own."""
    kinds = getattr(text_config, "layer_types", None) or ["full_attention"] * layers
    own = {kind: layer for layer, kind in enumerate(kinds[: layers - shared])}
    return {layer: own[kinds[layer]] for layer in range(layers - shared, layers)}


def _owner_of_layers(root: nn.Module) -> nn.Module | None:
    for module in root.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers) and _is_decoder_layer(layers[0]):
            return module
    return None


def _is_decoder_layer(layer: nn.Module) -> bool:
    return "hidden_states" in inspect.signature(layer.forward).parameters


def _blocks(tower: nn.Module | None) -> nn.ModuleList | None:
    if tower is None:
        return None
    lists = [m for m in tower.modules() if isinstance(m, nn.ModuleList) and len(m)]
    return max(lists, key=len, default=None)


def check_recomputation(layer: nn.Module) -> None:
    """Older transformers (5.17 does) run a layer's hooks again when the backward pass recomputes the layer."""
    hooks_inside = type(layer).__call__ is not nn.Module.__call__
    if hooks_inside and layer.training and getattr(layer, "gradient_checkpointing", False):
        raise PatchError(
            "gradient checkpointing of a patched model needs a newer transformers, in which hooks stay outside "
            "the checkpoint; upgrade it, or call model.gradient_checkpointing_disable()"
        )
