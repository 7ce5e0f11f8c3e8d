"""The words both embedded models know, and the tokenizer that is theirs in kind.

It knows whole domain words (" red", " circle"), the plural as a token of its own, so that "circles" shares the
embedding of " circle", and single capitals, which spell what is written in a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .vocabulary import COLOURS, LETTERS, SHAPES, SIZES

UNKNOWN = "<unk>"
NOUNS = (*SHAPES, "object", "thing", "word", "letter", "shape", "colour", "size", "picture")
WORDS = (
    *COLOURS, *NOUNS, *SIZES, "what", "where", "which", "how", "many", "much", "is", "are", "there", "the", "a",
    "an", "of", "to", "in", "on", "at", "any", "all", "and", "or", "not", "it", "this", "that", "do", "does",
    "you", "see", "say", "says", "read", "written", "seen", "left", "right", "top", "bottom", "centre", "above",
    "below", "under", "over", "beside", "near", "nearest", "closest", "next", "between", "same", "as", "yes",
    "no", "one", "two", "three", "four", "five", "six", "other", "only", "with", "image", "scene", "here",
)  # fmt: skip


def spelling() -> list[normalizers.Normalizer]:
    """Steps that write a question as the suites do."""
    return [
        # "What" is " what", but "BOOK" stays: it is spelt with the letters of the picture.
        *[normalizers.Replace(Regex(f"{c}(?=[a-z])"), c.lower()) for c in LETTERS],
        normalizers.Replace(Regex(r"color"), "colour"),
        normalizers.Replace(Regex(r"center"), "centre"),
    ]


def word_level(
    vocabulary: dict[str, int], special: Sequence[str], steps: Sequence[normalizers.Normalizer], rest: str
) -> Tokenizer:
    """The tokenizer of a vocabulary whose words bring their space along; `rest` matches what is not a word."""
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(list(steps))
    words = rf" (?:{'|'.join(NOUNS)})(?=(?:e?s)?(?![a-z]))|(?<=[a-z])e?s(?![a-z])| [a-z]+"
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|{rest}"), behavior="isolated")
    core.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return core


def wrapped(core: Tokenizer, longest: int, **tokens: Any) -> PreTrainedTokenizerFast:
    """As transformers takes it, padding on the left; `tokens` name the special ones."""
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
        **tokens,
    )
