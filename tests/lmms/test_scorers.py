"""Our `lmms` scorers against lmms-eval's own functions, on 200 stored outputs: empty, malformed and ordinary ones."""

import copy
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lmms_eval", reason="`make test-lmms` installs it")

from tokenprune.eval.benchmarks import get_scorer
from tokenprune.eval.metrics.aggregates import MME_COGNITION, MME_PERCEPTION

OUTPUTS = json.loads((Path(__file__).parent / "outputs.json").read_text(encoding="utf-8"))
TRUTHS = [
    "cat", "two", "2", "2000", "3.5%", "0.42", "42%", "100", "0", "2020", "14", "Paris", "New York City",
    "July 12, 2001", "stop", "blue", "it's", "U.S.A", "red brick wall", "coca-cola", "unanswerable", "none",
    "ünïcode", "e-mail", "-5", "yes", "no", "", ".", "$1,200.50", "0.0", "日本", "inf", "nan",
]  # fmt: skip


def own(task):
    return importlib.import_module(f"lmms_eval.tasks.{task}.utils")


def ours(name, output, answers, **facts):
    return get_scorer(name).each(output, answers, facts)


def different(pairs):
    """(output, answers, ours, theirs) of those that differ."""
    return [pair for pair in pairs if pair[2] != pytest.approx(pair[3], abs=1e-12)]


def test_there_are_two_hundred():
    assert len(set(OUTPUTS)) == 200 and {"", " ", "\n"} <= set(OUTPUTS)


def test_textvqa():
    """Ten annotators, of whom 0 to 10 agree."""
    pairs = []
    for number, output in enumerate(OUTPUTS):
        for shift in range(0, len(TRUTHS), 5):
            truth, other = TRUTHS[(number + shift) % len(TRUTHS)], TRUTHS[(number + shift + 7) % len(TRUTHS)]
            answers = [truth] * (number % 11) + [other] * (10 - number % 11)
            doc = {"question_id": 0, "answers": copy.copy(answers)}
            theirs = own("textvqa").textvqa_process_results(doc, [output])["exact_match"]
            pairs.append((output, answers, ours("textvqa.lmms", output, answers), theirs))
    assert different(pairs) == [] and {0.0, 0.3, 0.6, 0.9, 1.0} <= {round(p[3], 6) for p in pairs}


def test_docvqa():
    from lmms_eval.api.metrics import anls

    pairs = []
    for number, output in enumerate(OUTPUTS):
        for truth in TRUTHS:
            answers = [truth, TRUTHS[number % len(TRUTHS)]]
            pairs.append(
                (output, answers, ours("docvqa.lmms", output, answers), anls(answers, [output])["anls"])
            )
    assert different(pairs) == [] and sum(0 < p[3] < 1 for p in pairs) > 20


# lmms-eval holds infinities and NaN for numbers: "inf" is not within 5 % of "inf". Ours compare them as words.
NO_NUMBERS = {"nan", "inf", "infinity"}


def test_chartqa():
    pairs = []
    for output in OUTPUTS:
        for truth in TRUTHS:
            doc = {"type": "human_test", "answer": truth}
            theirs = own("chartqa").chartqa_process_results(doc, [output])["relaxed_overall"]
            pairs.append((output, [truth], ours("chartqa.lmms", output, [truth]), theirs))
    bad = different(pairs)
    assert [p for p in bad if p[1][0].lower().strip("+-") not in NO_NUMBERS] == []
    assert sum(p[3] for p in pairs) > 30


def test_pope():
    module, truths = own("pope"), ["yes", "no"]
    docs = [{"question_id": str(i), "answer": truths[i % 2]} for i in range(400)]
    outputs = [OUTPUTS[i // 2] for i in range(400)]  # every output is right once and wrong once
    results = [module.pope_process_results(doc, [output]) for doc, output in zip(docs, outputs)]
    pairs = [
        (o, [d["answer"]], ours("pope.lmms", o, [d["answer"]]), r["pope_accuracy"]["score"])
        for o, d, r in zip(outputs, docs, results)
    ]
    assert different(pairs) == []
    rng = np.random.default_rng(0)
    for rows in [np.arange(400), *(rng.choice(400, 60, replace=False) for _ in range(20))]:
        taken = (
            [outputs[i] for i in rows],
            [[docs[i]["answer"]] for i in rows],
            [{"id": str(i)} for i in rows],
        )
        found = get_scorer("pope.lmms").all(*taken)
        for name in ("accuracy", "precision", "recall", "f1"):
            metric = f"pope_{'f1_score' if name == 'f1' else name}"
            theirs = getattr(module, f"pope_aggregate_{metric.removeprefix('pope_')}")(
                [results[i][metric] for i in rows]
            )
            assert found[name] == pytest.approx(theirs, abs=1e-12), name


def test_mme():
    """Every output once for yes and once for no, two to a picture, in all fourteen categories."""
    module, kinds = own("mme"), [*MME_PERCEPTION, *MME_COGNITION]
    docs = [
        {"question_id": f"{i // 2}.jpg", "answer": ("Yes", "No")[i % 2], "category": kinds[i // 2 % 14]}
        for i in range(400)
    ]
    outputs = [OUTPUTS[(i // 2 + 37 * (i % 2)) % 200] for i in range(400)]
    results = [module.mme_process_results(doc, [output]) for doc, output in zip(docs, outputs)]
    pairs = [
        (o, [d["answer"]], ours("mme.lmms", o, [d["answer"]]), next(iter(r.values()))["score"])
        for o, d, r in zip(outputs, docs, results)
    ]
    assert different(pairs) == []
    facts = [{"id": str(i), "group": d["question_id"], "kind": d["category"]} for i, d in enumerate(docs)]
    found = get_scorer("mme.lmms").all(outputs, [[d["answer"]] for d in docs], facts)
    for part in ("perception", "cognition"):
        key = f"mme_{part}_score"
        assert found[part] == pytest.approx(
            module.mme_aggregate_results([r[key] for r in results if key in r])
        )
