"""The engine of one patch: hooks on the composite model, the text model and every decoder layer."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PatchError
from . import cuts
from .cache import Logical, is_logical, owner_of
from .cuts import Chooser, Fate
from .decoder import LAYER_FIELDS, TEXT_FIELDS, DecoderProbe, Places
from .deepstack import wrap_deepstack
from .fixation import Fixations
from .layout import find_layout
from .parts import Parts, check_recomputation
from .question import QuestionFinder
from .record import Prefill
from .step import UNSETTLED, Step, layer_index
from .temperature import Temperature
from .vision import VisionProbe

_PAYLOAD = ("pixel_values", "image_patches", "image_embeds", "video_embeds")
_TEXT_FIELDS = {"text", "question", *TEXT_FIELDS}
_PROMPT_FIELDS = {"attention", "received"}  # of the whole prompt, which a chunk of it does not have


class Engine:
    """Shortens the sequence inside the decoder. State of a forward is in `step`, of a conversation in its cache."""

    def __init__(self, parts: Parts, methods: Sequence[Chooser], processor: Any = None) -> None:
        self.parts = parts
        self.methods = list(methods)
        self.plan: dict[int, list[Chooser]] = {}
        for method in self.methods:
            for k in method.cut_layers(parts.num_layers):
                self.plan.setdefault(k, []).append(method)
        needs = frozenset().union(*(m.needs for m in self.methods)) if self.methods else frozenset()
        self.needs_text = bool(_TEXT_FIELDS & set(needs))
        asked = {k: frozenset().union(*(m.needs for m in here)) for k, here in self.plan.items()}
        wanted = {k: names & LAYER_FIELDS for k, names in asked.items()}
        self.decoder = DecoderProbe(parts, wanted, lambda: self.step is not None and self._fates is not None)
        self.question = QuestionFinder(parts.model.config, processor)
        self.probe = VisionProbe(parts, needs)
        attending = [m for m in self.methods if m.stage == "decode"]
        self.fixations = Fixations(parts, attending[0], self) if attending else None
        self.enabled = True
        self.step: Step | None = None
        self.last: Prefill | None = None  # what `PatchHandle.report` is made of
        self.busy = False  # a forward is under way; pruned caches read it
        self._warned: set[Any] = set()
        self._call: dict[str, Any] = {}
        self._fates: list[Fate] | None = None
        self._undo: list[Callable[[], None]] = []
        self._unhook: Callable[[], None] | None = None
        self.temperature = Temperature(parts.layers, lambda: self.step)
        self._signature = list(inspect.signature(parts.composite.forward).parameters)
        self._layer_names = list(inspect.signature(parts.layers[0].forward).parameters)

    def __deepcopy__(self, memo: Any) -> Engine:
        return self  # a copied cache still belongs to this patch

    # -- install and remove ------------------------------------------------------------------------------------

    def install(self) -> None:
        """Hook the model; on any error everything is taken back."""
        try:
            self.probe.install()
            self._undo.append(self.probe.remove)
            self._undo.append(self.decoder.remove)
            self.decoder.install()
            if self.fixations is not None:
                self._undo.append(self.fixations.remove)
                self.fixations.install()
            composite, text = self.parts.composite, self.parts.text
            self._undo.append(composite.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            self._undo.append(composite.register_forward_hook(self._leave, always_call=True).remove)
            self._undo.append(text.register_forward_hook(self._restore_length).remove)
            self._undo.append(wrap_deepstack(text, lambda: self.step))
            for place in range(len(self.parts.layers) if self.plan else 0):
                self._undo.append(self._hook_layer(place))
            self._undo.append(self.temperature.off)
        except BaseException:
            self.probe.remove()
            self.remove()
            raise

    def remove(self) -> None:
        """Undo everything, last first."""
        if self._unhook is not None:
            self._unhook = self._unhook()
        while self._undo:
            self._undo.pop()()

    def check_cache_use(self) -> None:
        """Called by a pruned cache layer that is about to be written to."""
        if not self.busy:
            raise PatchError(
                "this cache was pruned by a tokenprune patch that is not active now (removed, or inside disabled()); "
                "its keys do not stand for all tokens any more. Start from an empty cache, or keep the patch for the "
                "rest of this conversation"
            )

    # -- the composite model -----------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not self.parts.composite:  # its hooks came along, but they drive the original's parts
            raise PatchError(
                "this model is a copy of a patched one; copy it unpatched and patch the copy itself"
            )
        call = {**dict(zip(self._signature, args)), **kwargs}
        self.step, self._fates = None, None
        self.probe.begin(call)
        if not self.enabled:
            return
        cache = call.get("past_key_values")
        owner = owner_of(cache)
        if owner is not None and owner is not self:
            raise PatchError("this cache was pruned by another patch; start from an empty cache")
        self.busy = True
        if self.fixations is not None:
            self.fixations.begin(cache, _length(call))
        ids, payload = call.get("input_ids"), _has_payload(call)
        if payload:
            check_recomputation(self.parts.layers[0])
            self.temperature.on()
        elif not module.training:  # whose backward pass may run the layers of an earlier call again
            self.temperature.off()
        if payload and ids is None:
            raise PatchError(
                "a patched model needs input_ids to see where the images are, not inputs_embeds alone"
            )
        if not payload and owner is None:
            return
        shape = ids.shape if ids is not None else call["inputs_embeds"].shape
        implementation = getattr(self.parts.text_config, "_attn_implementation", "sdpa")
        self.step = Step(shape[1], shape[0], self, implementation)
        self._call = call
        if owner is not None and shape[1] > 1:
            self._warn_later_turn()
        if payload:
            self._fates = []
            if not self.plan and self._unhook is None:
                # Nothing is ever cut: the first layer is asked only now, to find the images.
                self._unhook = self._hook_layer(0)
        else:
            self.step.filler_past = getattr(cache, "_tokenprune_ragged", False)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        step, fates = self.step, self._fates
        self.step, self._fates, self.busy = None, None, False
        self.probe.end()
        if self._unhook is not None:
            self._unhook = self._unhook()
        if self.fixations is not None:
            self.fixations.end(finished=output is not None)
        if step is not None and fates is not None and step.layout is not None and output is not None:
            cache = self._call.get("past_key_values") or getattr(output, "past_key_values", None)
            if cache is not None:
                cache._tokenprune_images = step.layout.images_seen
            if step.layout.segments:  # some models are handed pixels again at every decode step
                self.last = Prefill.of(self.parts, step, fates, cache)
                if cache is not None and self.fixations is not None:
                    gaze = self.fixations.after_prefill(cache, step.layout, self.last.past)
                    self.last.looks = functools.partial(self.fixations.report, gaze)
        self._call = {}

    def _warn_later_turn(self) -> None:
        aware = [m for m in self.methods if getattr(m, "query_aware", False)]
        if aware:
            self._warn_once(
                "later turn",
                f"{type(aware[0]).__name__} chose the cached image tokens for the first question; they stay as they "
                "are for this one. Start a new conversation, or use a method that does not look at the question",
            )

    def _warn_large_keep(self, method: Chooser, n: int) -> None:
        if isinstance(method.keep, int) and method.keep > n:
            message = f"keep={method.keep}, but this image has {n} tokens: all of them stay"
            self._warn_once(("keep", id(method)), message)

    def _warn_once(self, key: Any, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, stacklevel=3)

    # -- the decoder layers ------------------------------------------------------------------------------------

    def _hook_layer(self, place: int) -> Callable[[], None]:
        """Returns how to undo it."""
        layer = self.parts.layers[place]
        hook = self._layer_hook(place, layer_index(layer, place))
        return layer.register_forward_pre_hook(hook, with_kwargs=True).remove

    def _layer_hook(self, place: int, cache_slot: int) -> Callable[..., Any]:
        cuts_here = place == 0 or place in self.plan
        stateful, lender = place in self.parts.states, self.parts.lenders.get(place)

        def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            step = self.step
            if step is None:
                return None
            if self._fates is None:  # a later call on a pruned cache: only masks can need work
                mask = kwargs.get("attention_mask")
                if stateful or (mask is None and not step.filler_past):
                    return None
                if args and "attention_mask" in kwargs:  # the short way of every decode step, without a call
                    layers = getattr(kwargs.get("past_key_values"), "layers", ())
                    slot: Any = layers[cache_slot] if cache_slot < len(layers) else None
                    known = step.settled.get(type(slot), UNSETTLED)
                    fits = isinstance(slot, Logical) and known.map is slot.map and known.mask is mask
                    if lender is not None:
                        new = step.entered.get(lender, mask)
                        if new is not None and new.dim() == 4 and new.shape[2] != args[0].shape[1]:
                            new = step.enter_sharing_layer(lender, args[0].shape[1])
                    elif not isinstance(slot, Logical):
                        new = step.entered[cache_slot] = mask
                    elif fits and (known.stored is None or known.stored == slot.stored):
                        new = step.entered[cache_slot] = known.result
                    else:
                        new = step.enter_layer(kwargs["past_key_values"], cache_slot, mask, args[0].device)
                    return None if new is mask else (args, {**kwargs, "attention_mask": new})
            elif cuts_here:
                args, kwargs = self._cut(place, args, kwargs, step)
            return self._shorten(place, cache_slot, args, kwargs, step)

        return before

    def _shorten(self, place: int, slot: int, args: tuple[Any, ...], kwargs: dict[str, Any], step: Step) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        named = {**dict(zip(self._layer_names[1:], args[1:])), **kwargs}
        cache, mask = named.get("past_key_values"), named.get("attention_mask")
        lender = self.parts.lenders.get(place)
        if place in self.parts.states:
            new_mask = step.enter_state_layer(cache, slot, mask)
        elif lender is not None:
            new_mask = step.enter_sharing_layer(lender, hidden.shape[1])
        else:
            new_mask = step.enter_layer(cache, slot, mask, hidden.device)
        if step.ragged and cache is not None:
            cache._tokenprune_ragged = True
        if step.index is None or hidden.shape[1] != step.physical:  # the last layers may get the last tokens only
            if new_mask is mask:
                return args, kwargs
            changed = {"attention_mask": new_mask}
        else:
            skip = ("hidden_states", "attention_mask", "past_key_values")
            changed = {n: step.gather(n, v) for n, v in named.items() if n not in skip}
            changed["attention_mask"] = new_mask
            if "flash" in step.implementation and changed.get("position_ids") is not None:
                changed["position_ids"] = None  # gaps would be taken for packed sequences
        rest = tuple(changed.get(n, v) for n, v in zip(self._layer_names[1:], args[1:]))
        taken = self._layer_names[1 : len(args)]
        return (*args[:1], *rest), {**kwargs, **{n: v for n, v in changed.items() if n not in taken}}

    def _cut(self, place: int, args: tuple[Any, ...], kwargs: dict[str, Any], step: Step) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if step.layout is None:
            self._begin(step, hidden)
        before = step.index
        hidden = self._choose(place, hidden, step)
        step.lengths[place] = step.physical
        if step.index is before and hidden is (args[0] if args else kwargs["hidden_states"]):
            return args, kwargs
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _begin(self, step: Step, hidden: Tensor) -> None:
        """First layer of a prefill: find the images, and the question if a method asks for it."""
        call, sources = self._call, []
        encoded = call.get("mm_encoder_outputs") or {}
        ids = call["input_ids"].cpu()
        family, placeholders = self.parts.family, self.parts.placeholders
        for modality in placeholders:
            source = self.probe.features(modality, encoded.get(modality), ids)
            if source is not None:
                sources.append(source.thinned(family.merged(modality, call)))
        same_clip = None if self.question.tokenizer is None else self._same_clip
        step.layout = find_layout(
            ids, sources, placeholders, hidden.device, family.same_image, same_clip, family.joined
        )
        step.layout.number_after(getattr(call.get("past_key_values"), "_tokenprune_images", []))
        self._fates = cuts.start(step.layout)
        step.question = None
        if self.probe.in_chunks and any(_PROMPT_FIELDS & m.needs for m in self.methods):
            raise PatchError(
                "a method that looks at attention inside the language model needs the whole prompt in one call; leave "
                "out prefill_chunk_size, or use a method of the input stage"
            )
        if self.needs_text and step.layout.segments:
            ends_early = self.probe.in_chunks or bool(step.layout.visual[:, -1].any())
            if self.question.fixed is None and ends_early:
                raise PatchError(
                    "this call ends before the question that this method reads; leave out prefill_chunk_size, set "
                    "handle.question(...), or use a method that does not look at the question"
                )
            embed = self.parts.composite.get_input_embeddings()
            padding = _padding(call.get("attention_mask"), ids.shape[1])
            step.question = cuts.read_question(self.question, ids, step.layout, padding, hidden, embed)

    def _same_clip(self, ids: Tensor, spans: list[tuple[int, int]]) -> list[int | None] | None:
        return self.parts.family.same_clip(ids, spans, self.question.tokenizer.decode)

    def _choose(self, place: int, hidden: Tensor, step: Step) -> Tensor:
        """Run the methods of this layer and go on with what they keep."""
        layout, changed = step.layout, False
        if layout is None or not layout.segments:
            return hidden
        watched = self.decoder.at(place, step, self._places(step, hidden.device))
        for method in self.plan.get(place, ()):
            fates = cuts.split(self._fates or [])
            for fate in fates:
                n = fate.entry.setdefault(id(method), fate.alive[0])
                self._warn_large_keep(method, n)
                plan = method.schedule(n, self.parts.num_layers) if method.exact else None
                target = None if plan is None else plan[place]
                if target is not None and target >= fate.alive[0]:
                    continue  # nothing to choose
                tokens, local, flat = cuts.make_tokens(
                    fate, hidden, step, step.question, method.needs, place, self.parts.num_layers, watched,
                    self.parts.family.merge_friendly,
                )  # fmt: skip
                answer = cuts.apply(method, fate, tokens, local, target)
                fate.history.append((place, list(fate.alive)))
                if answer.features is not None:
                    hidden = cuts.replace_features(hidden, answer.features, flat, step)
                if answer.merge is not None:
                    step.merges.append(cuts.deepstack_merge(answer.merge, flat))
                changed = True
            self._fates = fates
        if not changed:
            return hidden
        alive, counts = cuts.alive_mask(layout, self._fates or [], hidden.device)
        rows = step.cut(alive, counts)
        return hidden.flatten(0, 1).index_select(0, rows).unflatten(0, (step.batch, -1))

    def _places(self, step: Step, device: Any) -> Places:
        """Where the text is that methods inside the language model look from."""
        question = step.question
        padding = _padding(self._call.get("attention_mask"), step.length)
        last = torch.full((step.batch,), step.length - 1)
        if padding is not None:  # the last token that is none
            last = step.length - 1 - padding.flip(1).to(torch.uint8).argmax(1)
        last = last.to(device, non_blocking=True)
        real = None if padding is None else padding.to(device, non_blocking=True)
        return Places(*((None, None) if question is None else (question.places, question.mask)), last, real)

    # -- the text model ----------------------------------------------------------------------------------------

    def _restore_length(self, module: nn.Module, args: Any, output: Any) -> Any:
        step = self.step
        if step is None or step.index is None:
            return None
        hidden = output[0] if isinstance(output, tuple) else output.last_hidden_state
        if hidden.shape[1] != step.physical:  # the last tokens only, as asked for
            return None
        if isinstance(output, tuple):
            return (step.scatter(output[0]), *output[1:])
        full = step.scatter(output.last_hidden_state)
        hidden = getattr(output, "hidden_states", None)
        if hidden is not None:  # inner entries keep their physical length
            output.hidden_states = (*hidden[:-1], full)
        output.last_hidden_state = full
        return output


def _length(call: dict[str, Any]) -> int:
    ids = call.get("input_ids")
    return ids.shape[1] if ids is not None else call["inputs_embeds"].shape[1]


def _has_payload(call: dict[str, Any]) -> bool:
    encoded = call.get("mm_encoder_outputs") or {}
    if any(v is not None for v in encoded.values()):
        return True
    return any(v is not None and str(k).startswith(_PAYLOAD) for k, v in call.items())


def _padding(mask: Any, length: int) -> Tensor | None:
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask[:, -length:].cpu().bool()
    return None


def is_pruned(cache: Any) -> bool:
    """The cache holds fewer keys than its sequence has tokens."""
    return any(is_logical(layer) for layer in getattr(cache, "layers", ()))
