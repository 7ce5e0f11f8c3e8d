"""`lmms-eval --model tokenprune`: any of its generation tasks under any method, with a journal that survives a crash.

    lmms-eval --model tokenprune --model_args pretrained=llava-hf/llava-1.5-7b-hf,method=flashvlm,keep=0.25 --tasks pope

lmms-eval writes nothing down until every answer is there. Here each batch is on the disk before the next one starts,
and the same command goes on where it stopped. Prompts are those of lmms-eval's `default` models.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from lmms_eval.models.model_utils.gen_metrics import log_metrics  # pyright: ignore[reportMissingImports]
from lmms_eval.protocol import ChatMessages  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

from ..chat import load_chat
from ..errors import InputError
from ..eval.answer import tokens_left
from ..eval.facts import chat_facts
from ..eval.journal import Journal, Record, Records, fingerprint
from ..eval.resize import Resizer
from ..eval.shard import Shard
from ..media import load_clip
from ..patching import patch_model

NEW_TOKENS = 128
"""Where a task says nothing: what lmms-eval's own chat model of Qwen2.5-VL takes."""
NONE = "none"


class TokenPrune(lmms):
    """A Hugging Face VLM under one method. Arguments are what `--model_args` gives, and lmms-eval's own three.

    pretrained: an embedded model, a local folder or a Hugging Face id. method: a name, or `none`; keep and any other
    hyper-parameter go to it; or recipe: a YAML file, for chains. frames: of a video, which lmms-eval gives as a path.
    journal: the folder answers are kept in; default `out/lmms/` and a name made of everything that can change one.
    """

    is_simple: ClassVar[bool] = False

    def __init__(
        self,
        pretrained: str,
        method: str = NONE,
        recipe: str | None = None,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        device_map: str | None = None,
        dtype: str = "auto",
        max_new_tokens: int = NEW_TOKENS,
        frames: int = 16,
        journal: str | None = None,
        **hyper: Any,
    ) -> None:
        super().__init__()
        shard = Shard.from_environment()
        self._rank, self._world_size = shard.rank, shard.world
        place = shard.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.chat = load_chat(pretrained, device=place, dtype=dtype, device_map=device_map)
        self.batch_size, self.max_new_tokens, self.frames = int(batch_size), max_new_tokens, frames
        self.handle = None
        if recipe is not None:
            if method != NONE:
                raise InputError(f"method={method} and recipe={recipe}: give one of them")
            self.handle = patch_model(self.chat.model, processor=self.chat.processor, recipe=recipe)
        elif method != NONE:
            self.handle = patch_model(self.chat.model, method, self.chat.processor, **hyper)
        elif hyper:
            raise InputError(f"{', '.join(hyper)}: nothing takes it; give a method")
        facts = {
            **chat_facts(self.chat),
            "methods": [] if self.handle is None else self.handle.recipe().methods,
            "batch": self.batch_size,
            "frames": frames,
        }
        self.journal = Journal(Path(journal or f"out/lmms/{fingerprint(facts)}"), facts, rank=self._rank)
        self.records = Records(self.journal.folder)
        self.resizer = Resizer(self.chat)

    @property
    def device(self) -> torch.device:
        return self.chat.device

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Greedy answers in order; what the journal holds is not asked again."""
        asked = [self._asked(request) for request in requests]
        bar = tqdm(total=len(asked), disable=self.rank != 0, desc="Model Responding")
        start, fresh = time.perf_counter(), []
        for batch in self._batches(asked):
            records = self._answers(batch)
            self.journal.append(records)
            fresh += records
            self.records.update()
            bar.update(len(batch))
        bar.close()
        self._log(fresh, time.perf_counter() - start)
        found = [self.records.found[place] for place, *_ in asked]
        return [
            GenerationResult(r["text"], TokenCounts(int(r["text_tokens"] + r["before"]), r["generated"]))
            for r in found
        ]

    def _asked(self, request: Any) -> tuple[tuple[str, str], list[dict[str, Any]], dict[str, Any]]:
        """(its place in the journal, the conversation with paths of videos, generation settings) of a request."""
        _, to_messages, settings, doc_id, task, split = request.args
        messages = ChatMessages(messages=to_messages(self.task_dict[task][split][doc_id]))
        turns = messages.to_hf_messages()
        settings = {**settings, "max_new_tokens": settings.get("max_new_tokens") or self.max_new_tokens}
        if int(settings.get("num_beams") or 1) > 1:
            raise InputError(f"task {task}: asks for {settings['num_beams']} beams; answers here are greedy")
        digest = hashlib.sha256(
            json.dumps([turns, settings], sort_keys=True, default=_mark).encode()
        ).hexdigest()
        return (f"{task} {split}", f"{doc_id} {digest[:16]}"), turns, settings

    def _batches(self, asked: Sequence[Any]) -> Iterator[list[Any]]:
        """What is not answered yet, `batch_size` at a time, of equal settings."""
        waiting: dict[str, list[Any]] = {}
        for one in dict((one[0], one) for one in asked if one[0] not in self.records.found).values():
            batch = waiting.setdefault(json.dumps(one[2], sort_keys=True), [])
            batch.append(one)
            if len(batch) == self.batch_size:
                yield batch[:]
                batch.clear()
        yield from (batch for batch in waiting.values() if batch)

    def _answers(self, batch: Sequence[Any]) -> list[Record]:
        limit = batch[0][2]["max_new_tokens"]
        inputs = self.chat.converse([self._with_clips(turns) for _, turns, _ in batch])
        rows = self.chat.generate(inputs, limit)
        report = None if self.handle is None else self.handle.report
        lengths, seen = inputs["attention_mask"].sum(1).tolist(), self.resizer.visual(inputs)
        return [
            {
                "row": row, "id": name, "text": _until(text, settings), "generated": len(rows[i]),
                "unfinished": len(rows[i]) >= limit, "text_tokens": lengths[i] - seen[i], "before": seen[i],
                **tokens_left(report if seen[i] else None, i, seen[i]), "batch": len(batch),
            }
            for i, (((row, name), _, settings), text) in enumerate(zip(batch, self.chat.text(rows)))
        ]  # fmt: skip

    def _with_clips(self, turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The conversation with its videos decoded."""

        def part(one: Mapping[str, Any]) -> Mapping[str, Any]:
            if one["type"] != "video":
                return one
            if {"video_start", "video_end"} & one.keys():
                raise InputError(f"{one['video']}: only a part of it is asked for, which is not supported")
            return {"type": "video", "video": load_clip(one["video"], frames=self.frames)}

        return [{**turn, "content": [part(one) for one in turn["content"]]} for turn in turns]

    def _log(self, fresh: Sequence[Record], seconds: float) -> None:
        """lmms-eval's throughput, with the visual tokens before and after; of what was asked now only."""
        if fresh:
            tokens = sum(r["generated"] for r in fresh)
            mean = {k: sum(r[k] for r in fresh) / len(fresh) for k in ("before", "equivalent", "kept")}
            more = {f"visual_tokens_{k}": v for k, v in mean.items()}
            log_metrics(
                total_gen_tokens=tokens, total_elapsed_time=seconds, avg_speed=tokens / max(seconds, 1e-9),
                additional_metrics={"rank": self.rank, **more},
            )  # fmt: skip

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        raise NotImplementedError(
            "tokenprune answers; tasks that rank given answers by likelihood are not supported"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        raise NotImplementedError(
            "tokenprune answers in one round; tasks of several rounds are not supported"
        )


def _until(text: str, settings: Mapping[str, Any]) -> str:
    """Up to the task's first stop string; a blank line, lmms-eval's default, would cut pages short and is none."""
    stops = settings.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop and stop != "\n\n":
            text = text.split(stop)[0]
    return text


def _mark(medium: Any) -> str:
    """A picture by its pixels."""
    if hasattr(medium, "tobytes"):
        size = getattr(medium, "size", None)
        return f"{size} {hashlib.sha256(medium.tobytes()).hexdigest()}"
    return str(medium)
