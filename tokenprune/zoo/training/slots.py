"""Many questions about one picture in one sequence, each answered as if it were alone.

    <s> USER: [196 visual tokens] | question 1 ASSISTANT: answer | question 2 ASSISTANT: answer | ...
    0   1     2 .. 197            | 198 ..                       | 198 ..                       | ...

A slot attends to the picture and to itself, never to another slot, and every slot's positions start where
the picture ends. So each is exactly the prompt of the final model, at a tenth of the cost of a picture each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import LlamaModel, PreTrainedTokenizerFast

from ..layout import Scene
from ..questions import TRAINING_KINDS, Question, ask

PREFIX = 2  # <s> USER:
VISUAL = 196
SLOT = 11  # longest question with its answer, in tokens
SLOTS = 12
WEIGHTS = {"colour": 0.7, "shape": 0.7, "size": 0.5, "count": 1.5, "exist": 0.8, "place": 1.2, "left": 1.5,
           "nearest": 1.5, "read": 3.0, "right": 0.3, "above": 0.3, "below": 0.3}  # fmt: skip
COUNT_WEIGHTS = {"0": 0.15, "1": 0.2, "2": 0.3, "3": 0.3, "4": 0.3}
IGNORE = -100


def pick_questions(
    scene: Scene,
    rng: random.Random,
    count: int = SLOTS,
    kinds: Sequence[str] = TRAINING_KINDS,
    weights: dict[str, float] = WEIGHTS,
) -> list[Question]:
    """`count` questions of mixed kinds; closed answers evened out, since a scene has few counts above one."""
    pools = {kind: ask(scene, kind, rng) for kind in kinds}
    pools = {kind: [q for q in pool if not q.held_out] for kind, pool in pools.items()}
    picked: list[Question] = []
    while len(picked) < count:
        open_kinds = [kind for kind, pool in pools.items() if pool]
        if not open_kinds:
            return [picked[i % len(picked)] for i in range(count)]
        kind = rng.choices(open_kinds, [weights[k] for k in open_kinds])[0]
        pool = pools[kind]
        if kind in ("count", "exist"):
            answers = sorted({q.answer for q in pool})
            answer = rng.choices(answers, [COUNT_WEIGHTS.get(a, 1.0) for a in answers])[0]
            choice = rng.choice([q for q in pool if q.answer == answer])
        else:
            choice = rng.choice(pool)
        pool.remove(choice)
        picked.append(choice)
    return picked


class Encoder:
    """Question -> token ids and targets, with a memory: the same questions come again and again."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._memory: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    def __call__(self, question: Question) -> tuple[list[int], list[int]]:
        """(SLOT inputs, SLOT targets); targets are IGNORE except where the answer and its end are predicted."""
        key = (question.text, question.answer)
        if key not in self._memory:
            prompt = self._tokenizer(f"{question.text} ASSISTANT:", add_special_tokens=False).input_ids
            answer = self._tokenizer(f"{question.answer}</s>", add_special_tokens=False).input_ids
            inputs = prompt + answer[:-1]
            targets = [IGNORE] * (len(prompt) - 1) + answer
            missing = SLOT - len(inputs)
            if missing < 0:
                raise ValueError(f"{question.text!r} with {question.answer!r} exceeds {SLOT} tokens")
            self._memory[key] = (inputs + [0] * missing, targets + [IGNORE] * missing)
            if len(self._memory) > 200_000:
                self._memory.clear()
                return self(question)
        return self._memory[key]


@dataclass
class SlotBatch:
    """`inputs`, `targets`: (B, K, SLOT) long; `kinds`: (B, K) long, index into the kinds there are."""

    inputs: torch.Tensor
    targets: torch.Tensor
    kinds: torch.Tensor


def encode(scenes: list[Scene], encoder: Encoder, rng: random.Random, count: int = SLOTS) -> SlotBatch:
    picked = [pick_questions(scene, rng, count) for scene in scenes]
    pairs = [[encoder(q) for q in row] for row in picked]
    kinds = [[TRAINING_KINDS.index(q.kind) for q in row] for row in picked]
    both = torch.tensor(pairs)
    return SlotBatch(both[:, :, 0], both[:, :, 1], torch.tensor(kinds))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def rms(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain


def block(
    x: torch.Tensor, weights: tuple[torch.Tensor | None, ...], cos: torch.Tensor, sin: torch.Tensor,
    causal: torch.Tensor, inside: torch.Tensor, width: int,
) -> torch.Tensor:  # fmt: skip
    """One Llama or Qwen2 layer over picture and slots; x is (B, L, D), the two masks are added to the scores.

    Attention is spelt out: at these sizes the fused kernel's backward pass takes two thirds of a step on a
    processor, and it cannot skip what other slots hold.
    """
    gain1, wq, wk, wv, wo, gain2, gate, up, down, *biases = weights
    batch, length, _ = x.shape
    split, slot = causal.shape[0], inside.shape[0]
    y = rms(x, gain1)
    biases = biases or (None, None, None)
    q, k, v = (
        F.linear(y, w, b).view(batch, length, -1, width).transpose(1, 2) for w, b in zip((wq, wk, wv), biases)
    )
    q, k = (rotate(q, cos, sin) * width**-0.5).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    heads = q.shape[1]

    seen_k, seen_v = k[:, :, :split], v[:, :, :split]
    scores = q[:, :, :split] @ seen_k.transpose(2, 3)
    picture = torch.softmax(scores.float() + causal, -1).to(v.dtype) @ seen_v

    own_q, own_k, own_v = (t[:, :, split:].reshape(batch, heads, -1, slot, width) for t in (q, k, v))
    to_picture = q[:, :, split:] @ seen_k.transpose(2, 3)
    to_self = (own_q @ own_k.transpose(3, 4)).float() + inside
    both = torch.cat((to_picture.float(), to_self.view(batch, heads, -1, slot)), -1)
    share_of = torch.softmax(both, -1).to(v.dtype)
    answers = share_of[..., :split] @ seen_v
    answers = answers + (share_of[..., split:].reshape(to_self.shape) @ own_v).view(answers.shape)

    out = torch.cat((picture, answers), 2).transpose(1, 2).reshape(batch, length, -1)
    x = x + F.linear(out, wo)
    y = rms(x, gain2)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)


class SlotDecoder:
    """Runs a stock `LlamaModel` on picture + slots; same numbers as its own forward, one slot at a time."""

    def __init__(
        self, model: LlamaModel, slots: int = SLOTS, visual: int = VISUAL, compiled: bool = True
    ) -> None:
        self.model, self.split = model, PREFIX + visual
        self.width = model.config.head_dim
        places = torch.cat([torch.arange(self.split), self.split + torch.arange(SLOT).repeat(slots)])
        with torch.no_grad():
            cos, sin = model.rotary_emb(torch.zeros(1, 1), places[None])
        self.cos, self.sin = cos[:, None].clone(), sin[:, None].clone()
        self.causal, self.inside = (torch.full((n, n), -1e9).triu(1) for n in (self.split, SLOT))
        self.block = torch.compile(block, dynamic=False) if compiled else block

    def __call__(self, visual: torch.Tensor, batch: SlotBatch) -> torch.Tensor:
        """visual (B, 196, D), slots (B, K, SLOT) -> final hidden states of the slots (B, K, SLOT, D)."""
        model = self.model
        rows, count, _ = batch.inputs.shape
        prefix = model.embed_tokens(torch.tensor([1, 5]))[None].expand(rows, -1, -1)
        x = torch.cat((prefix, visual, model.embed_tokens(batch.inputs).flatten(1, 2)), 1)
        for layer in model.layers:
            a, m = layer.self_attn, layer.mlp
            weights = (
                layer.input_layernorm.weight, a.q_proj.weight, a.k_proj.weight, a.v_proj.weight, a.o_proj.weight,
                layer.post_attention_layernorm.weight, m.gate_proj.weight, m.up_proj.weight, m.down_proj.weight,
            )  # fmt: skip
            x = self.block(x, weights, self.cos, self.sin, self.causal, self.inside, self.width)
        x = rms(x[:, self.split :].float(), model.norm.weight)
        return x.view(rows, count, SLOT, -1)


def answer_loss(
    hidden: torch.Tensor, embedding: torch.Tensor, batch: SlotBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the answer tokens; (B, K) bool: the whole answer is right; share of right tokens."""
    asked = batch.targets != IGNORE
    logits = hidden[asked].float() @ embedding.T.float()
    targets = batch.targets[asked]
    hits = logits.argmax(-1) == targets
    right = torch.ones_like(asked)
    right[asked] = hits
    return F.cross_entropy(logits, targets), right.all(-1), hits.float().mean()


def by_kind(
    right: torch.Tensor, kinds: torch.Tensor, names: Sequence[str] = TRAINING_KINDS
) -> dict[str, float]:
    """Share of right answers of each kind that occurs; `kinds` count in `names`."""
    return {
        kind: right[kinds == i].float().mean().item() for i, kind in enumerate(names) if (kinds == i).any()
    }
