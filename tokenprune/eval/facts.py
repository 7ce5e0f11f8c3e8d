"""Everything that can change an answer, as plain data: what a journal is marked with."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from ..bench.machine import versions
from ..chat import Chat
from .suite import Suite


def chat_facts(chat: Chat) -> dict[str, Any]:
    """The model and the versions, of everything that can change an answer."""
    found = versions()
    return {
        "model": {
            "name": chat.name,
            "version": chat.version,
            "class": type(chat.model).__name__,
            "parameters": sum(p.numel() for p in chat.model.parameters()),
            "weights": weights_hash(chat.model),
            "dtype": str(chat.model.dtype).removeprefix("torch."),
            "attention": getattr(chat.model.config, "_attn_implementation", None),
            "device": torch.device(chat.device).type,
            "processor": _processor_hash(chat.processor),
        },
        "versions": {k: found[k] for k in ("tokenprune", "torch", "transformers")},
    }


def run_facts(chat: Chat, suite: Suite, batch: int) -> dict[str, Any]:
    """Everything that can change an answer: two runs with the same facts may share a journal."""
    facts = {
        **chat_facts(chat), "suite": suite.hash(), "max_new_tokens": suite.max_new_tokens, "batch": batch,
    }  # fmt: skip
    if len({s.group for s in suite.samples}) < len(suite.samples):
        facts["together"] = "whole pictures"  # else batches are plain slices
    return facts


def weights_hash(model: torch.nn.Module) -> str:
    """Sixteen hex digits of names, shapes and a few values of every weight: cheap, and different for another one."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().flatten()
        step = max(1, flat.numel() // 16)
        digest.update(f"{name}{tuple(value.shape)}{flat[::step][:17].float().tolist()}".encode())
    return digest.hexdigest()[:16]


def _processor_hash(processor: Any) -> str:
    template = str(getattr(processor, "chat_template", ""))
    maker = getattr(processor, "image_processor", None)
    facts: dict[str, Any] = maker.to_dict() if maker is not None and hasattr(maker, "to_dict") else {}
    facts = {k: v for k, v in facts.items() if "path" not in k}
    return hashlib.sha256((template + json.dumps(facts, sort_keys=True, default=str)).encode()).hexdigest()[
        :16
    ]
