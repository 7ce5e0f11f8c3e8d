"""From a method's answers to the tokens that stay: build `VisualTokens` for each group, call it, merge its masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import PatchError
from ..tokens import Selection, Stage, VisualTokens
from .decoder import LAYER_FIELDS, TEXT_FIELDS, Watched
from .layout import Group, Layout, Segment
from .question import QuestionFinder
from .step import Step


class Chooser(Protocol):
    """What the hooks ask of a method; `Reducer` has it."""

    stage: ClassVar[Stage]
    exact: ClassVar[bool]
    needs: ClassVar[frozenset[str]]

    def select(self, tokens: VisualTokens, keep: int) -> Selection: ...
    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None: ...
    def cut_layers(self, num_layers: int) -> tuple[int, ...]: ...


@dataclass(eq=False)
class Fate:
    """What has become of one group so far; `alive` counts are None where the content decided and nobody asked."""

    group: Group
    alive: list[int]  # tokens left of each image
    keep: Tensor | None = None  # (S, N) bool over the original tokens; None: all
    scores: Tensor | None = None
    owner: Tensor | None = None
    history: list[tuple[int, list[int]]] = field(default_factory=list)  # (layer, alive from it on)
    memo: dict[str, Any] = field(default_factory=dict)
    entry: dict[int, int] = field(default_factory=dict)  # id of a method -> tokens that reached its first cut


def start(layout: Layout) -> list[Fate]:
    """Everything alive."""
    return [Fate(g, [g.shape.n] * len(g.segments)) for g in layout.groups]


def split(fates: list[Fate]) -> list[Fate]:
    """One fate an image: after a cut, images of one shape no longer share their coordinates."""
    out = []
    for fate in fates:
        if fate.keep is None or len(fate.group.segments) == 1:
            out.append(fate)
            continue
        for i, segment in enumerate(fate.group.segments):
            one = Fate(Group([segment], fate.group.flat[i : i + 1]), [fate.alive[i]], fate.keep[i : i + 1])
            one.scores = None if fate.scores is None else fate.scores[i : i + 1]
            one.owner = None if fate.owner is None else fate.owner[i : i + 1]
            one.entry = dict(fate.entry)
            one.history, one.memo = [(k, [a[i]]) for k, a in fate.history], _rows(fate.memo, i)
            out.append(one)
    return out


def _rows(memo: dict[str, Any], i: int) -> dict[str, Any]:
    return {k: v[i : i + 1] if isinstance(v, (Tensor, list)) else v for k, v in memo.items()}


@dataclass(eq=False)
class Question:
    """The question's tokens of each row of the call."""

    features: Tensor  # (B, T, D)
    mask: Tensor  # (B, T)
    strings: list[str] | None
    places: Tensor | None = None  # (B, T) logical; None when it was set by hand and stands nowhere


def read_question(
    finder: QuestionFinder,
    ids: Tensor,
    layout: Layout,
    padding: Tensor | None,
    hidden: Tensor,
    embed: Callable[[Tensor], Tensor],
) -> Question | None:
    """Gather the question's vectors from (B, L, D) inputs; None when there is no text at all."""
    fixed = finder.fixed_ids()
    if fixed is not None:
        vectors = embed(fixed.to(hidden.device)).to(hidden.dtype).expand(ids.shape[0], -1, -1)
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool, device=hidden.device)
        return Question(vectors, mask, finder.text_of(ids, mask))
    mask = finder.find(ids, layout, padding)
    width = int(mask.sum(1).max())
    if width == 0:
        return None
    order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
    chosen = mask.gather(1, order).to(hidden.device)
    order = order.to(hidden.device)
    rows = torch.arange(ids.shape[0], device=hidden.device)[:, None]
    return Question(hidden[rows, order], chosen, finder.text_of(ids, mask), order)


def make_tokens(
    fate: Fate,
    hidden: Tensor,
    step: Step,
    question: Question | None,
    needs: frozenset[str],
    layer: int,
    num_layers: int,
    watched: Watched | None = None,
    merge_friendly: bool = False,
) -> tuple[VisualTokens, Tensor | None, Tensor]:
    """`VisualTokens` of a group, the (1, n) original indices left of it after an earlier cut, and its flat places."""
    group = fate.group
    names = {n.split("@")[0] for n in needs}
    coords: Any = group.shape.coords.to(hidden.device)
    extras = {n: group.extra(n) for n in ("saliency", "vision_features", "vision_keys") if n in names}
    flat, local, grid = group.flat, None, group.shape.grid
    if fate.keep is not None:
        local = fate.keep[0].to(torch.uint8).argsort(descending=True, stable=True)[: fate.alive[0]][None]
        coords, flat, grid = coords[local[0]], flat.gather(1, local), None
        extras = {n: None if v is None else v[:, local[0]] for n, v in extras.items()}
    features = _pick(hidden, flat, step)
    ordinal: Any = torch.tensor([s.ordinal for s in group.segments]).to(hidden.device, non_blocking=True)
    tokens = VisualTokens(
        features,
        grid,
        group.kind,
        coords,
        ordinal,
        layer=layer,
        num_layers=num_layers,
        merge_friendly=merge_friendly,
        memo=fate.memo,
        **extras,
    )
    rows = torch.tensor([s.row for s in group.segments]).to(hidden.device, non_blocking=True)
    if watched is not None:
        for name, value in watched.fields(names & LAYER_FIELDS, flat, rows).items():
            setattr(tokens, name, value)
    if question is not None and names & {"text", "question", *TEXT_FIELDS}:
        tokens.text_mask = question.mask[rows]  # type: ignore[assignment]
        if "text" in names:
            tokens.text = _text(question, hidden, step, layer)[rows]
        if question.strings is not None:
            tokens.question = [question.strings[s.row] for s in group.segments]
    return tokens, local, flat


def _text(question: Question, hidden: Tensor, step: Step, layer: int) -> Tensor:
    """(B, T, D) of the question: input embeddings at layer 0, hidden states deeper down."""
    if layer == 0 or question.places is None:
        return question.features
    base = torch.arange(question.places.shape[0], device=hidden.device)[:, None] * step.length
    return _pick(hidden, question.places + base, step)


def _pick(hidden: Tensor, flat: Tensor, step: Step) -> Tensor:
    """(S, N, D) rows of (B, P, D) hidden states, by flat logical index."""
    rows = step.rows_of(flat.flatten())  # type: ignore[arg-type]
    return hidden.flatten(0, 1).index_select(0, rows).view(*flat.shape, hidden.shape[-1])


def replace_features(hidden: Tensor, features: Tensor, flat: Tensor, step: Step) -> Tensor:
    """Write (S, n, D) merged features over the tokens at `flat` (S, n); what is dropped afterwards does not matter."""
    rows = step.rows_of(flat.flatten())  # type: ignore[arg-type]
    merged = features.flatten(0, 1).to(hidden.dtype)
    return hidden.flatten(0, 1).index_copy(0, rows, merged).view_as(hidden)


def deepstack_merge(merge: Callable[[Tensor], Tensor], flat: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The same linear map for DeepStack levels, whose rows are all visual tokens of the call in order."""

    def apply_merge(levels: Tensor, visual: Tensor) -> Tensor:
        rank = visual.flatten().long().cumsum(0) - 1
        rows = rank.to(levels.device)[flat.flatten().to(levels.device)]
        own = levels.index_select(0, rows).view(*flat.shape, -1)
        return levels.index_copy(0, rows, merge(own).flatten(0, 1).to(levels.dtype))

    return apply_merge


def apply(
    method: Chooser, fate: Fate, tokens: VisualTokens, local: Tensor | None, target: int | None
) -> Selection:
    """Call the method on one group and take over its answer, checked."""
    s, n, _ = tokens.shape
    answer = method.select(tokens, n if target is None else target)
    if answer.keep.shape != (s, n) or answer.keep.dtype != torch.bool:
        raise PatchError(
            f"{type(method).__name__} answered with a mask {tuple(answer.keep.shape)}, not ({s}, {n}) bool"
        )
    full = (s, fate.group.shape.n)
    keep = answer.keep if local is None else torch.zeros(full, dtype=torch.bool, device=local.device)
    if local is not None:
        keep = keep.scatter(1, local, answer.keep)
    if target is not None and method.exact:
        fate.alive = [target] * s
    else:
        fate.alive = keep.sum(1).tolist()  # the one synchronisation of methods whose content decides
        if min(fate.alive) < 1:
            raise PatchError(
                f"{type(method).__name__} kept nothing of an image; at least one token has to stay"
            )
    fate.keep = keep
    if answer.scores is not None:
        blank = torch.full(full, float("nan"), device=keep.device)
        scores = answer.scores.detach().float()
        fate.scores = scores if local is None else blank.scatter(1, local, scores)
    if answer.owner is not None:
        fate.owner = answer.owner if local is None else _lift_owner(answer.owner, local, full)
    return answer


def _lift_owner(owner: Tensor, local: Tensor, full: tuple[int, int]) -> Tensor:
    out = torch.full(full, -1, dtype=owner.dtype, device=owner.device)
    back = torch.where(owner >= 0, local.gather(1, owner.clamp(min=0)), owner)
    return out.scatter(1, local, back)


def alive_mask(layout: Layout, fates: list[Fate], device: torch.device) -> tuple[Tensor, list[int]]:
    """(B, L) tokens that stay, and their number per row: all text, and what is left of each image."""
    alive = torch.ones(layout.batch * layout.length, dtype=torch.bool, device=device)
    counts = [layout.length] * layout.batch
    for fate in fates:
        if fate.keep is None:
            continue
        alive[fate.group.flat.flatten()] = fate.keep.flatten()
        for segment, left in zip(fate.group.segments, fate.alive):
            counts[segment.row] -= fate.group.shape.n - left
    return alive.view(layout.batch, layout.length), counts


def segments_of(fates: list[Fate]) -> list[tuple[Segment, Fate, int]]:
    """(segment, its fate, its place in it) of every image, in the order of the prompt."""
    pairs = [(s, f, i) for f in fates for i, s in enumerate(f.group.segments)]
    return sorted(pairs, key=lambda p: (p[0].row, p[0].ordinal))
