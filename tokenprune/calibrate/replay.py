"""Dense answers, recorded once and replayed under `fixation` with one set of focal layers after another.

`generate` itself is recorded: what it hands the model at each decode step (positions, masks, whatever a family needs)
is handed over again, token by token, on a copy of the cache that the prefill left. So what is judged is what runs,
and only the decode steps are paid for.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, UnsupportedModelError
from ..hooks.gaze import gaze_of
from ..methods.fixation import Fixation
from ..patching import patch_model
from .greedy import Focal

OBJECTIVES = ("kl", "loss")


@dataclass(frozen=True)
class Recording:
    """A dense run of a batch over given answers. Step t reads token t of the answers and predicts token t + 1."""

    prefill: dict[str, Any]  # the call, its empty cache apart
    empty: Any  # the cache before the prefill
    steps: list[dict[str, Any]]  # the T calls behind it, their cache apart
    logprobs: Tensor  # (T, B, vocabulary), float32
    targets: Tensor  # (T, B) tokens to be predicted
    valid: Tensor  # (T, B) the row's answer still goes on

    @property
    def tokens(self) -> int:
        """Predicted tokens, each row's first one apart: that comes from the prefill, which is always dense."""
        return int(self.valid.sum())


@torch.no_grad()
def record(model: Any, inputs: dict[str, Any], answers: Sequence[Sequence[int]]) -> Recording:
    """Run the unpatched model over `answers`, one list of tokens a row of the left-padded batch `inputs`.

    The log probabilities of every step stay in memory: T x B x vocabulary floats.
    """
    width = max(map(len, answers))
    if width < 2:
        raise InputError(
            "answers of a single token come from the prefill: there is no decode step to look at"
        )
    calls: list[dict[str, Any]] = []
    caches: list[Any] = []

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = dict(kwargs)
        cache = call.pop("past_key_values", None)
        if not caches:
            caches.append(copy.deepcopy(cache))
        calls.append({k: v.clone() if calls and isinstance(v, Tensor) else v for k, v in call.items()})

    prompt = inputs["input_ids"].shape[1]
    forced = torch.tensor(
        [[*a, *[a[-1]] * (width - len(a))] for a in answers], device=inputs["input_ids"].device
    )
    hook = model.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        out = model.generate(
            **inputs, max_new_tokens=width, do_sample=False, num_beams=1, output_logits=True,
            return_dict_in_generate=True, logits_processor=[_force(forced, prompt)],
        )  # fmt: skip
    finally:
        hook.remove()
    steps = calls[1:]
    if caches[0] is None or any(call["input_ids"].shape[1] != 1 for call in steps):
        raise UnsupportedModelError(
            f"{type(model).__name__} does not answer by one prefill and single tokens on a cache"
        )
    lengths = torch.tensor([len(a) for a in answers], device=forced.device)
    valid = torch.arange(len(steps), device=forced.device)[:, None] < lengths - 1
    logprobs = torch.stack([x.float().log_softmax(-1) for x in out.logits[1:]])
    return Recording(calls[0], caches[0], steps, logprobs, forced[:, 1 : len(steps) + 1].T, valid)


def _force(tokens: Tensor, prompt: int) -> Any:
    """A logits processor that lets only `tokens` (B, T) come out."""

    def only(ids: Tensor, scores: Tensor) -> Tensor:
        place = tokens[:, ids.shape[1] - prompt, None]
        return torch.full_like(scores, float("-inf")).scatter(1, place, 0.0)

    return only


class Replay(contextlib.AbstractContextManager["Replay"]):
    """Recordings on a model that is patched while this is open; `cost` runs the decode steps of a set of layers."""

    def __init__(self, model: Any, recordings: Sequence[Recording], method: Fixation) -> None:
        self.model, self.recordings, self.method = model, list(recordings), method
        self.forwards = 0  # decode steps run
        self._known: dict[tuple[Focal, int, str], float] = {}
        self._caches: list[Any] = []

    @torch.no_grad()
    def __enter__(self) -> Replay:
        self._handle = patch_model(self.model, self.method)
        try:
            for recording in self.recordings:
                cache = copy.deepcopy(recording.empty)
                self.model(**recording.prefill, past_key_values=cache)
                if gaze_of(cache) is None:
                    raise InputError("a prompt without a picture has no visual tokens to look at")
                self._caches.append(cache)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self._caches.clear()

    def cost(self, focal: Focal, objective: str = "kl") -> float:
        """Mean over the answers' tokens of all recordings with these focal layers.

        "kl": KL(dense || sparse) in nats; "loss": the answer's negative log likelihood. Infinite where none of the
        layers can look, because all of them see a sliding window.
        """
        total = sum(self._sum(focal, i, objective, math.inf) for i in range(len(self.recordings)))
        return total / sum(recording.tokens for recording in self.recordings)

    def quick(self, focal: Focal, objective: str = "kl", bound: float = math.inf) -> float:
        """The same over the first recording. It gives up and is infinite once it is above `bound`: costs only grow."""
        tokens = self.recordings[0].tokens
        return self._sum(focal, 0, objective, bound * tokens) / tokens

    def _sum(self, focal: Focal, number: int, objective: str, bound: float) -> float:
        if objective not in OBJECTIVES:
            raise InputError(f"objective={objective!r}: {' or '.join(map(repr, OBJECTIVES))}")
        key = (focal, number, objective)
        if key not in self._known:
            try:
                total = self._run(focal, number, objective, bound)
            except UnsupportedModelError:
                total = math.inf
            if total > bound:
                return math.inf
            self._known[key] = total
        return self._known[key]

    @torch.no_grad()
    def _run(self, focal: Focal, number: int, objective: str, bound: float) -> float:
        recording = self.recordings[number]
        cache = copy.deepcopy(self._caches[number])
        gaze: Any = gaze_of(cache)
        gaze.owner.fixations.focal = frozenset(focal)  # the patch goes on with other layers: all are tapped
        total = torch.zeros((), device=recording.logprobs.device)
        for t, call in enumerate(recording.steps):
            self.forwards += 1
            sparse = self.model(**call, past_key_values=cache).logits[:, -1].float().log_softmax(-1)
            dense, valid = recording.logprobs[t], recording.valid[t]
            if objective == "kl":
                each = (dense.exp() * (dense - sparse)).sum(-1).clamp(min=0.0)  # rounding
            else:
                each = -sparse.gather(1, recording.targets[t, :, None])[:, 0]
            total += torch.where(valid, each, 0.0).sum()
            if math.isfinite(bound) and float(total) > bound:
                break
        return float(total)
