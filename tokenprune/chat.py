"""A model with its processor, as something that can be asked about a picture or a clip."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import zoo
from .errors import InputError, MissingExtraError, TokenPruneError, UnsupportedModelError
from .families import refused
from .media import Clip

DEFAULT = "tiny-llava"
WATCHES = "tiny-qwen"
"""The embedded model that reads clips, where it is shipped."""
Medium = Image.Image | Clip
Conversation = Sequence[Mapping[str, Any]]
DTYPES = ("auto", "float32", "bfloat16", "float16")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass
class Chat:
    """A loaded model and how to ask it. `inputs` and `answer` work for any Hugging Face VLM with a processor."""

    model: Any
    processor: Any
    name: str  # a hub id, a zoo name or a folder's own name: never a path
    version: str | None = None  # of a zoo checkpoint

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def templated(self) -> bool:
        """Whether questions go through a chat template; else the image token is put before the bare question."""
        return bool(getattr(self.processor, "chat_template", None))

    @property
    def watches(self) -> bool:
        """Whether its processor reads clips."""
        return getattr(self.processor, "video_processor", None) is not None

    def inputs(
        self, medium: Medium | Sequence[Medium | None] | None, question: str | Sequence[str]
    ) -> dict[str, Any]:
        """What the model takes for a question about a picture or clip, or for the question alone (None).

        Lists of equal length make a batch, padded on the left; every row has a picture, or every row a clip, or none
        has either.
        """
        media = [medium] if medium is None or isinstance(medium, (Image.Image, Clip)) else list(medium)
        questions = [question] if isinstance(question, str) else list(question)
        shown = [m for m in media if m is not None]
        films = [m for m in shown if isinstance(m, Clip)]
        if len(media) != len(questions) or len(shown) not in (0, len(media)):
            raise InputError(
                f"{len(shown)} pictures for {len(questions)} questions: one each, or none at all"
            )
        if len(films) not in (0, len(shown)):
            raise InputError("a batch of pictures and clips: ask about one or the other")
        if films and not self.watches:
            kind = type(self.processor).__name__
            raise UnsupportedModelError(
                f"{self.name} watches no video: its processor ({kind}) reads pictures only"
            )
        asked = f"the question {questions[0]!r}" if len(questions) == 1 else f"{len(questions)} questions"
        with self._reading(asked):
            return self._placed(self._encode_clips(films, questions) if films else self._encode(shown, questions))

    def converse(self, conversations: Sequence[Conversation]) -> dict[str, Any]:
        """What the model takes for whole conversations, with any number of media in their places.

        A conversation is a list of turns as chat templates take them, whose parts are `{"type": "text", "text": ...}`,
        `{"type": "image", "image": picture}` and `{"type": "video", "video": clip}`. Several make a batch.
        """
        parts = [[p for turn in turns for p in turn["content"]] for turns in conversations]
        films = [p["video"] for row in parts for p in row if p["type"] == "video"]
        if films and not self.watches:
            raise UnsupportedModelError(f"{self.name} watches no video: its processor reads pictures only")
        asked = f"{len(conversations)} conversation{'s' * (len(conversations) > 1)}"
        with self._reading(asked):
            if self.templated and not films:
                return self._placed(self._encode_turns(conversations))
            if self.templated:
                bare = [[{**t, "content": [_bare(p) for p in t["content"]]} for t in c] for c in conversations]
                texts = [self.processor.apply_chat_template(c, add_generation_prompt=True) for c in bare]
            else:
                texts = ["\n".join(p.get("text") or self._token(p["type"]) for p in row) for row in parts]
            pictures = [[p["image"] for p in row if p["type"] == "image"] for row in parts]
            return self._placed(self._encode_texts(texts, pictures, films))

    @contextlib.contextmanager
    def _reading(self, asked: str) -> Iterator[None]:
        """What processors raise, as one error of ours."""
        try:
            with _left_padding(self.processor):
                yield
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise InputError(f"{type(self.processor).__name__} cannot read {asked}: {error}") from error

    def _placed(self, batch: Any) -> dict[str, Any]:
        return dict(batch.to(self.device, dtype=self.model.dtype))  # casts floats only

    def _encode_clips(self, films: list[Clip], questions: list[str]) -> Any:
        if self.templated:
            content: list[dict[str, Any]] = [{"type": "video"}, {"type": "text", "text": ""}]
            texts = []
            for question in questions:
                content[1]["text"] = question
                turn = [{"role": "user", "content": content}]
                texts.append(self.processor.apply_chat_template(turn, add_generation_prompt=True))
        else:
            texts = [f"{self._token('video')}\n{q}" for q in questions]
        return self._encode_texts(texts, [], films)

    def _encode_texts(self, texts: list[str], pictures: list[list[Any]], films: list[Clip]) -> Any:
        media: dict[str, Any] = {"images": pictures} if any(pictures) else {}
        if films:
            media["videos"] = [film.frames for film in films]
            media["video_metadata"] = [film.metadata() for film in films]
            media["do_sample_frames"] = False  # they were chosen when the clip was read
        padding = {"padding": True} if len(texts) > 1 else {}
        return self.processor(text=texts, return_tensors="pt", **media, **padding)

    def _encode_turns(self, conversations: Sequence[Conversation]) -> Any:
        return self.processor.apply_chat_template(
            [list(turns) for turns in conversations],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"processor_kwargs": {"padding": True}} if len(conversations) > 1 else {}),
        )

    def _encode(self, pictures: list[Any], questions: list[str]) -> Any:
        if self.templated:
            turns = []
            for row, question in enumerate(questions):
                content: list[dict[str, Any]] = (
                    [{"type": "image", "image": pictures[row]}] if pictures else []
                )
                turns.append([{"role": "user", "content": [*content, {"type": "text", "text": question}]}])
            return self._encode_turns(turns)
        if pictures:
            texts = [f"{self._token('image')}\n{q}" for q in questions]
            nested = [[p] for p in pictures]  # one list a row: the only form every processor reads as a batch
            return self._encode_texts(texts, nested, [])
        return self._encode_texts(questions, [], [])

    def _token(self, modality: str) -> str:
        for holder in (self.processor, getattr(self.processor, "tokenizer", None)):
            token = getattr(holder, f"{modality}_token", None)
            if token:
                return str(token)
        return f"<{modality}>"

    @torch.no_grad()
    def generate(self, inputs: dict[str, Any], max_new_tokens: int, **options: Any) -> list[list[int]]:
        """The greedy new tokens of each row, up to and without its end token; `options` go to `model.generate`."""
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, **options)
        stops = set(_ids(self.model.generation_config.eos_token_id))  # padding comes only behind one of them
        rows = out[:, inputs["input_ids"].shape[1] :].tolist()
        return [row[: next((i for i, t in enumerate(row) if t in stops), len(row))] for row in rows]

    def text(self, rows: list[list[int]]) -> list[str]:
        """Generated tokens as answers, without special tokens."""
        return [t.strip() for t in self.processor.batch_decode(rows, skip_special_tokens=True)]

    def answer(self, inputs: dict[str, Any], max_new_tokens: int) -> str:
        """The greedy answer to a single question."""
        return self.text(self.generate(inputs, max_new_tokens))[0]

    def visible_box(self, medium: Medium) -> tuple[float, float, float, float] | None:
        """The share of a picture or of a clip's frames (left, top, right, bottom) left after the processor's centre
        crop; None: all of it."""
        film = isinstance(medium, Clip)
        high, wide = medium.frames.shape[1:3] if film else medium.size[::-1]
        maker = getattr(self.processor, "video_processor" if film else "image_processor", None)
        if not film and getattr(maker, "image_grid_pinpoints", None):
            return None  # LLaVA-NeXT crops only its tiles, where there is nothing to crop; its base view is squeezed
        edge = _entry(getattr(maker, "size", None), "shortest_edge")
        crop = getattr(maker, "crop_size", None)
        height, width = _entry(crop, "height"), _entry(crop, "width")
        if not (getattr(maker, "do_center_crop", False) and edge and height and width):
            return None
        scale = edge / min(wide, high) if getattr(maker, "do_resize", False) else 1.0
        across = min(1.0, width / (wide * scale))
        down = min(1.0, height / (high * scale))
        return ((1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2)


def _bare(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part without its medium, which is handed to the processor beside the text."""
    return part if part["type"] == "text" else {"type": part["type"]}


def _ids(value: Any) -> list[int]:
    return (
        [] if value is None else [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    )


@contextlib.contextmanager
def _left_padding(processor: Any) -> Iterator[None]:
    """Answers grow at the right end of a row, so its padding has to be on the left."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        yield
        return
    side, pad = tokenizer.padding_side, tokenizer.pad_token
    tokenizer.padding_side = "left"
    if pad is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        yield
    finally:
        tokenizer.padding_side = side
        if pad is None:
            tokenizer.pad_token = None


def _entry(size: Any, key: str) -> int | None:
    """A size's entry, whether it is a dict or transformers' own SizeDict."""
    if size is None:
        return None
    return size.get(key) if isinstance(size, dict) else getattr(size, key, None)


def default_model(*, video: bool = False) -> str:
    """The embedded model that is asked when none is named. `InputError` where none that is embedded reads clips."""
    if not video:
        return DEFAULT
    if WATCHES not in zoo.list_models():
        raise InputError(
            f"none of the embedded models ({', '.join(zoo.list_models())}) watches video; "
            "name one that does with --model, for instance Qwen/Qwen2.5-VL-3B-Instruct or a local folder"
        )
    return WATCHES


def check_model(source: str, device: str = "cpu", dtype: str = "auto") -> None:
    """Raise `InputError` for what can be told to be wrong without loading anything."""
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: one of {', '.join(DTYPES)}")
    try:
        place = torch.device(device)
    except (RuntimeError, ValueError):
        raise InputError(f"device {device!r}: for instance cpu, cuda or cuda:1") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: this torch sees no CUDA device")
    if source in zoo.list_models():
        return
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{source}: no config.json in this folder, so it holds no Hugging Face model")
    elif folder.is_file():
        raise InputError(f"{source}: is a file; give the folder that holds config.json and the weights")
    elif not _HUB_ID.fullmatch(source):
        raise InputError(f"{source}: no such folder, and not the form of a Hugging Face id (owner/name)")
    elif "/" not in source:
        raise InputError(
            f"{source}: no such folder or embedded model; embedded: {', '.join(zoo.list_models())}"
        )


def load_chat(
    source: str = DEFAULT,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Chat:
    """Load an embedded model, a local folder or a Hugging Face id. Safetensors only.

    device_map: as `from_pretrained` takes it; it then decides instead of `device`.
    Raises `InputError` when it cannot be found or read, `UnsupportedModelError` when it does not read pictures.
    """
    check_model(source, device, dtype)
    placed: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
    if placed and importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError.of("accelerate", "eval")
    if source in zoo.list_models():
        options = {**placed, **({} if dtype == "auto" else {"dtype": getattr(torch, dtype)})}
        loaded: Any = zoo.load(source, **options)
        model, processor = loaded
        return Chat(model if placed else model.to(device), processor, source, str(zoo.info(source)["version"]))
    import transformers

    folder = Path(source).expanduser()
    label = folder.resolve().name if folder.is_dir() else source
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        if error := refused(config):  # before gigabytes of it are loaded
            raise error
        processor = transformers.AutoProcessor.from_pretrained(source, **options)
        auto: Any = transformers.AutoModelForImageTextToText
        model = auto.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, **placed, **options
        )
    except TokenPruneError:
        raise
    except Exception as error:  # everything from a missing file to a broken checkpoint ends here
        raise _explained(source, error) from error
    if not hasattr(processor, "image_processor"):
        raise UnsupportedModelError(f"{source}: its processor ({type(processor).__name__}) reads no pictures")
    return Chat((model if placed else model.to(device)).eval(), processor, label)


def _explained(source: str, error: Exception) -> TokenPruneError:
    """transformers' message, shortened to what helps."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if "Unrecognized configuration class" in text:
        kind = re.search(r"configuration class <class '[\w.]*?(\w+)'>", text)
        return UnsupportedModelError(
            f"{source}: {kind.group(1) if kind else 'its class'} is not a model that answers from pictures and text"
        )
    if "trust_remote_code" in text:
        return InputError(
            f"{source}: runs code of its own, which is not executed unless --trust-remote-code asks for it"
        )
    return InputError(f"{source}: cannot be loaded ({first[:300]})")
