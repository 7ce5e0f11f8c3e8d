"""FlashVLM looks where the question points: the asked thing's box is covered better than by another question."""

from __future__ import annotations

import itertools

import pytest
import torch

from tokenprune import patch_model

PATCH = 16  # pixels of one visual token of tiny-llava
SIDE = 14


def patches_of(boxes) -> set[int]:
    """Visual tokens whose patch lies at least half inside one of the boxes."""
    found = set()
    for left, top, right, bottom in boxes:
        for y, x in itertools.product(range(SIDE), repeat=2):
            wide = min(right, (x + 1) * PATCH) - max(left, x * PATCH)
            high = min(bottom, (y + 1) * PATCH) - max(top, y * PATCH)
            if wide > 0 and high > 0 and wide * high >= PATCH * PATCH / 2:
                found.add(y * SIDE + x)
    return found


def pairs_about_one_scene(samples):
    """(asked, other): two questions about one picture that point at different things."""
    scenes = {}
    for sample in samples:
        scenes.setdefault(sample.id.split("-")[0], []).append(sample)
    for group in scenes.values():
        for asked, other in itertools.permutations(group, 2):
            a, b = patches_of(asked.boxes), patches_of(other.boxes)
            if a and b and not a & b:
                yield asked, other, a


def kept_sets(model, processor, samples, questions, keep):
    """The tokens FlashVLM keeps of each sample's picture for each question, by image."""
    from tokenprune.zoo.evaluate import prompt_of

    kept = []
    with patch_model(model, "flashvlm", processor, keep=keep) as handle, torch.no_grad():
        for start in range(0, len(samples), 32):
            part = slice(start, start + 32)
            inputs = processor(
                images=[s.image for s in samples[part]],
                text=[prompt_of(processor, q) for q in questions[part]],
                padding=True,
                return_tensors="pt",
            ).to(model.dtype)
            model(**inputs)
            kept += [set(image.kept) for image in handle.report.images]
    return kept


@pytest.mark.slow
def test_the_asked_box_is_covered_better_than_by_another_question():
    from tokenprune.zoo import load, scenes

    model, processor = load("tiny-llava")
    triples = list(itertools.islice(pairs_about_one_scene(scenes.suite("test", n=900, seed=1)), 256))
    pictures = [asked for asked, _, _ in triples]
    own = kept_sets(model, processor, pictures, [a.question for a, _, _ in triples], keep=0.111)
    foreign = kept_sets(model, processor, pictures, [o.question for _, o, _ in triples], keep=0.111)
    share_own = sum(len(k & box) / len(box) for k, (_, _, box) in zip(own, triples)) / len(triples)
    share_foreign = sum(len(k & box) / len(box) for k, (_, _, box) in zip(foreign, triples)) / len(triples)
    better = sum(len(a & box) > len(b & box) for a, b, (_, _, box) in zip(own, foreign, triples))
    worse = sum(len(a & box) < len(b & box) for a, b, (_, _, box) in zip(own, foreign, triples))
    print(
        f"\nbox covered: {share_own:.1%} own question, {share_foreign:.1%} another; better {better}, worse {worse}"
    )
    assert len(triples) >= 100
    assert share_own > share_foreign and better > worse
