"""Scores that are no mean over samples, in two steps each: texts to arrays once, arrays to scores at once.

The second step takes any selection of rows, so a bootstrap over groups repeats it alone:
`bootstrap(lambda rows: pope_scores(said[rows], truth[rows])["f1"], len(said), images)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ...errors import InputError, UnknownNameError, neighbours

MME_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def _same_length(**columns: Sequence[object]) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise InputError(f"one entry per question is needed, and at least one question: got {lengths}")


def pope_codes(texts: Sequence[str]) -> np.ndarray:
    """(n,) int8: 1 for "yes", 0 for "no", -1 for any other text; case and outer blanks forgiven, nothing else."""
    return np.array([{"yes": 1, "no": 0}.get(text.strip().lower(), -1) for text in texts], dtype=np.int8)


def pope_scores(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """POPE's scores (Li et al. 2023) from codes as `pope_codes` gives them, both (n,); see `pope`."""
    if np.any(truth < 0):
        raise InputError(f"answer {int(np.argmax(truth < 0))} of POPE is neither yes nor no")
    hits = int(np.sum((said == 1) & (truth == 1)))
    false_alarms = int(np.sum((said == 1) & (truth == 0)))
    misses = int(np.sum((said == 0) & (truth == 1)))

    def share(part: int, rest: int) -> float:
        return part / (part + rest) if part else 0.0

    return {
        "accuracy": float(np.mean(said == truth)),
        "precision": share(hits, false_alarms),
        "recall": share(hits, misses),
        "f1": share(2 * hits, false_alarms + misses),
        "yes_ratio": float(np.mean(said == 1)),
    }


def pope(outputs: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of "yes", and the share of outputs that say yes, all in [0, 1].

    `outputs` and `answers` have one text per question; answers are yes or no. As in lmms-eval, an output that is not
    exactly yes or no is wrong and counts in neither precision nor recall. Unlike there `yes_ratio` is taken from the
    outputs, so that a model which always says yes shows. A ratio without cases is 0.
    """
    _same_length(outputs=outputs, answers=answers)
    return pope_scores(pope_codes(outputs), pope_codes(answers))


def mme_label(text: str) -> str:
    """What an MME answer says, "yes", "no" or "other": the word alone, its letter, or within the first 4 characters."""
    said = text.lower().strip().replace(".", "")
    for label in ("yes", "no"):
        if said in (label, label[0]):
            return label
    for label in ("yes", "no"):
        if label in said[:4]:
            return label
    return "other"


def mme_images(
    outputs: Sequence[str],
    answers: Sequence[str],
    images: Sequence[Hashable],
    categories: Sequence[str],
    label: Callable[[str], str] = mme_label,
) -> tuple[list[str], np.ndarray]:
    """The category and the score of every image of MME (Fu et al. 2023), in order of appearance: lists of m.

    All four inputs have one entry per question, and every image of a category has exactly two questions. A score is
    accuracy x 100, and 100 more if both are right: 0, 50 or 200. `InputError` names an image with another number of
    questions, `UnknownNameError` a category that MME does not have. label: what an output says.
    """
    _same_length(outputs=outputs, answers=answers, images=images, categories=categories)
    right: dict[tuple[str, Hashable], list[bool]] = defaultdict(list)
    for output, answer, image, category in zip(outputs, answers, images, categories):
        truth = mme_label(answer)
        if truth == "other":
            raise InputError(f"answer {answer!r} of {image!r} in MME is neither yes nor no")
        right[category, image].append(label(output) == truth)
    for (category, image), found in right.items():
        _mme_part(category)
        if len(found) != 2:
            raise InputError(
                f"image {image!r} of MME's {category} has {len(found)} questions, not 2; limit MME by image, not by row"
            )
    scores = [50.0 * sum(found) + 100.0 * all(found) for found in right.values()]
    return [category for category, _ in right], np.array(scores)


def _mme_part(category: str) -> str:
    if category in MME_PERCEPTION:
        return "perception"
    if category in MME_COGNITION:
        return "cognition"
    known = (*MME_PERCEPTION, *MME_COGNITION)
    raise UnknownNameError(f"MME has no category {category!r}; {neighbours(category, known)}")


def mme_scores(categories: Sequence[str] | np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """MME's scores from what `mme_images` gives, both (m,): see `mme`."""
    names, codes = np.unique(np.asarray(categories), return_inverse=True)
    means = np.bincount(codes, weights=scores) / np.bincount(codes)
    found = {str(name): float(mean) for name, mean in zip(names, means)}
    parts: dict[str, float] = {}
    for name, mean in found.items():
        part = _mme_part(name)
        parts[part] = parts.get(part, 0.0) + mean
    return found | parts


def mme(
    outputs: Sequence[str], answers: Sequence[str], images: Sequence[Hashable], categories: Sequence[str]
) -> dict[str, float]:
    """Every category's score, 0 to 200, and their sums "perception" (max 2000) and "cognition" (max 800).

    A category's score is the mean over its images. Only categories and sums that occur in the input are returned,
    so the maximum of a subset of MME is less. Inputs and errors as for `mme_images`.
    """
    return mme_scores(*mme_images(outputs, answers, images, categories))
