"""The decoder of `tiny-qwen` over prompts with M-RoPE places: many questions about one picture in one sequence.

As `slots` does for `tiny-llava`, each question attends to the picture and to itself, and its places start where the
picture ends: each is exactly the prompt of the final model. Here pictures have any grid and questions any length.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from .. import typesetting
from ..build_qwen import END, START, VISION_END, VISION_START, build_tokenizer, qwen_config, vocabulary
from ..pages import CHARACTERS
from ..questions import Question
from ..vocabulary import COLOURS, SHAPES, SIZES
from ..weights import start_language
from . import growth
from .slots import IGNORE, SlotBatch, block, rms

PREFIX = (START, " user", "\n", VISION_START)
Grid = tuple[int, int, int]
"""(time steps, rows, columns) of merged tokens."""


class Encoder:
    """Questions -> token ids and targets, padded to the longest of the batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        self._tokenizer = tokenizer or build_tokenizer()
        self._memory: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        if text not in self._memory:
            if len(self._memory) > 100_000:
                self._memory.clear()
            self._memory[text] = self._tokenizer(text, add_special_tokens=False).input_ids
        return self._memory[text]

    def pair(self, question: Question) -> tuple[list[int], list[int]]:
        """Inputs and targets of one question; targets are IGNORE except for the answer and its end."""
        prompt = self._ids(f"{VISION_END}{question.text}{END}\n{START}assistant\n")
        answer = [*self._ids(question.answer), *self._ids(END)]
        return prompt + answer[:-1], [IGNORE] * (len(prompt) - 1) + answer

    def __call__(self, rows: Sequence[Sequence[Question]], kinds: Sequence[str]) -> SlotBatch:
        """(B, K) questions -> a batch whose `kinds` count in `kinds`."""
        pairs = [[self.pair(q) for q in row] for row in rows]
        width = max(len(inputs) for row in pairs for inputs, _ in row)
        inputs = [[i + [0] * (width - len(i)) for i, _ in row] for row in pairs]
        targets = [[t + [IGNORE] * (width - len(t)) for _, t in row] for row in pairs]
        numbers = [[kinds.index(q.kind) for q in row] for row in rows]
        return SlotBatch(*map(torch.tensor, (inputs, targets, numbers)))


def places(grid: Grid, interval: int = 2) -> torch.Tensor:
    """(3, prefix + visual) of time, height, width, as `get_rope_index` counts them; text goes on at `after`."""
    time, rows, columns = grid
    start = len(PREFIX)
    axes = torch.meshgrid(
        torch.arange(time) * interval, torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    visual = torch.stack(axes).flatten(1) + start
    return torch.cat((torch.arange(start).expand(3, -1), visual), 1)


def after(grid: Grid) -> int:
    """The first place of the text behind a picture of this grid."""
    return len(PREFIX) + max(grid[1:])


@dataclass
class Early:
    """States inside the decoder: after a third of the layers of the visual tokens `seen` (B, cells, D) and of the slots
    `asked` (B, K, S, D); after two thirds of the slots `found` (B, K, S, D)."""

    seen: torch.Tensor
    asked: torch.Tensor
    found: torch.Tensor


class Decoder:
    """Runs a stock text model on picture + slots; same numbers as its own forward, one slot at a time."""

    def __init__(self, model: Qwen2_5_VLTextModel) -> None:
        self.model = model
        config = model.config
        self.width = config.hidden_size // config.num_attention_heads
        table = vocabulary()
        self.prefix = torch.tensor([table[token] for token in PREFIX])
        self.turn = table["\n"]

    def __call__(self, visual: torch.Tensor, grid: Grid, batch: SlotBatch) -> tuple[torch.Tensor, Early]:
        """visual (B, cells, D), slots (B, K, S) -> final hidden states of the slots (B, K, S, D), and earlier ones."""
        model, device = self.model, visual.device
        rows, count, slot = batch.inputs.shape
        prefix = model.embed_tokens(self.prefix.to(device))[None].expand(rows, -1, -1)
        x = torch.cat((prefix, visual, model.embed_tokens(batch.inputs).flatten(1, 2)), 1)
        split = prefix.shape[1] + visual.shape[1]
        where = (after(grid) + torch.arange(slot)).repeat(count).expand(3, -1)
        where = torch.cat((places(grid), where), 1)[:, None].to(device)
        with torch.no_grad():
            cos, sin = (t[:, None] for t in model.rotary_emb(torch.zeros(1, device=device), where))
        causal, inside = (torch.full((n, n), -1e9, device=device).triu(1) for n in (split, slot))
        early = middle = x
        for number, layer in enumerate(model.layers):
            if number == (len(model.layers) + 2) // 3:
                early = x
            if number == 2 * len(model.layers) // 3:
                middle = x
            a, m = layer.self_attn, layer.mlp
            weights = (
                layer.input_layernorm.weight, a.q_proj.weight, a.k_proj.weight, a.v_proj.weight, a.o_proj.weight,
                layer.post_attention_layernorm.weight, m.gate_proj.weight, m.up_proj.weight, m.down_proj.weight,
                a.q_proj.bias, a.k_proj.bias, a.v_proj.bias,
            )  # fmt: skip
            x = block(x, weights, cos, sin, causal, inside, self.width)
        x = rms(x[:, split:].float(), model.norm.weight)
        shape = (rows, count, slot, -1)
        known = Early(
            early[:, prefix.shape[1] : split], early[:, split:].view(shape), middle[:, split:].view(shape)
        )
        return x.view(shape), known


#: What is asked of inner layers in training: line, row and column of a visual token, the line being written, and row
#: and column of what a question is about.
PLACES = {"line": 16, "row": 16, "column": 32, "here": 16, "ask_row": 16, "ask_column": 32}


def _told(head: nn.Module, states: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Mean cross-entropy over all (N, D) states, targets of 0 at a third; the share right of the others."""
    logits = head(states.float())
    weight = torch.where(target > 0, 1.0, 0.3)
    each = F.cross_entropy(logits, target, reduction="none")
    right = (logits.argmax(-1) == target)[target > 0].float().mean().item() if (target > 0).any() else 1.0
    return (each * weight).sum() / weight.sum(), right


def place_loss(
    heads: nn.ModuleDict, known: Early, grid: Grid, lines: torch.Tensor, focus: torch.Tensor, batch: SlotBatch,
    turn: int,
) -> tuple[torch.Tensor, dict[str, float]]:  # fmt: skip
    """How well inner layers know where they are: dense lessons that keep a reader on its line.

    lines (B, cells): the line a cell belongs to, from 1, or 0; focus (B, K, 2): row and column of what a question is
    about, or -1; `turn`: the token that ends a line. The line being written is asked for where the only question is a
    whole page.
    """
    device, (_, rows, columns) = lines.device, grid
    shape = (len(lines), *grid)
    r = torch.arange(rows, device=device)[:, None].expand(shape).flatten()
    c = torch.arange(columns, device=device).expand(shape).flatten()
    asks = {"row": (known.seen.flatten(0, 1), r), "column": (known.seen.flatten(0, 1), c)}
    answer = batch.targets != IGNORE
    if (lines > 0).any():
        asks["line"] = known.seen.flatten(0, 1), lines.flatten()
        if answer.shape[1] == 1:
            turns = ((batch.inputs == turn) & (answer.cumsum(-1) > 1)).cumsum(-1)
            asks["here"] = known.asked[answer], (turns + 1).clamp(max=PLACES["here"])[answer]
    about = focus[..., 0] >= 0
    if about.any():
        last = answer.float().argmax(-1)[..., None, None].expand(-1, -1, 1, known.found.shape[-1])
        found = known.found.gather(2, last)[:, :, 0][about]
        asks |= {"ask_row": (found, focus[about][:, 0] + 1), "ask_column": (found, focus[about][:, 1] + 1)}
    total, right = torch.zeros((), device=device), {}
    for name, (states, target) in asks.items():
        loss, share = _told(heads[name], states, target)
        total = total + loss
        right[f"at_{name}"] = share
    return total, right


class CellWords(nn.Module):
    """Cell labels -> the visual tokens a perfect tower would give: the words for what a cell shows.

    `heads` only serve `place_loss`."""

    TABLES = {"before": typesetting.TURN, "before2": typesetting.TURN, "after": typesetting.PAGE_END}

    def __init__(self, width: int) -> None:
        super().__init__()
        table = vocabulary()
        words = {
            "char": list(CHARACTERS),
            "colour": [f" {name}" for name in COLOURS],
            "shape": [f" {name}" for name in SHAPES],
            "size": [f" {name}" for name in SIZES],
        }
        for name, tokens in words.items():
            self.register_buffer(name, torch.tensor([0, *(table[t] for t in tokens)]), persistent=False)
        self.words = tuple(words)
        self.embed_context = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(n + 1, width) * 0.1) for name, n in self.TABLES.items()}
        )
        self.embed_centre = nn.Parameter(torch.randn(width) * 0.1)
        self.embed_empty = nn.Parameter(torch.randn(width) * 0.05)
        self.heads = nn.ModuleDict({name: nn.Linear(width, n + 1) for name, n in PLACES.items()})

    def forward(self, labels: dict[str, torch.Tensor], embedding: torch.Tensor) -> torch.Tensor:
        """Labels (B, N) and word embeddings (V, D) -> (B, N, D)."""
        total = self.embed_centre * (labels["centre"] > 0)[..., None]
        empty = torch.ones_like(labels["char"], dtype=torch.bool)
        for name in self.words:
            shown = labels[name] > 0
            empty &= ~shown
            total = total + embedding[getattr(self, name)[labels[name].clamp(min=0)]] * shown[..., None]
        for name, rows in self.embed_context.items():
            total = total + rows[labels[name].clamp(min=0)] * (labels[name] > 0)[..., None]
        return total + self.embed_empty * empty[..., None]


def new_text_model(layers: int) -> Qwen2_5_VLTextModel:
    model = Qwen2_5_VLTextModel(qwen_config(layers).text_config)
    start_language(model)
    return model


@torch.no_grad()
def from_llava() -> Qwen2_5_VLTextModel:
    """A decoder of 16 layers with the weights of the shipped `tiny-llava`, word by word where both know a word.

    Both decoders have the same shape, and on text M-RoPE is RoPE: what was learnt about colours, counts and spelling
    comes along, what depends on the order of visual tokens does not.
    """
    from .. import load

    donor, processor = load("tiny-llava")
    language = donor.model.language_model
    model = new_text_model(language.config.num_hidden_layers)
    known = processor.tokenizer.get_vocab()
    ours = model.embed_tokens.weight
    theirs = language.embed_tokens.weight
    same = {END: "</s>", START: "USER:", " assistant": "ASSISTANT:"}
    for token, i in vocabulary().items():
        other = same.get(token, token if token in known else f" {token}")
        if other in known:
            ours[i] = theirs[known[other]]
    for deep, source in zip(model.layers, language.layers):
        weights = source.state_dict()
        missing, unexpected = deep.load_state_dict(weights, strict=False)
        if unexpected or not all(name.endswith("bias") for name in missing):
            raise ValueError(f"the decoders differ: {missing} {unexpected}")
    model.norm.load_state_dict(language.norm.state_dict())
    return model


def grow(model: Qwen2_5_VLTextModel, layers: int) -> Qwen2_5_VLTextModel:
    """Deeper, nearly the same function."""
    return growth.grow(model, new_text_model(layers))


def shuffle_pick(rng: random.Random, questions: list[Question], count: int) -> list[Question]:
    """`count` questions, each as rarely repeated as can be."""
    order = rng.sample(questions, len(questions))
    return [order[i % len(order)] for i in range(count)]
