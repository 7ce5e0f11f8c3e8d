"""How an answer is scored: one number in [0, 1] per sample, and the few scores that only a set of samples has."""

from .aggregates import mme, mme_images, mme_label, mme_scores, pope, pope_codes, pope_scores
from .answers import contains, exact, gqa, relaxed
from .choices import letter, yesno
from .distance import anls, cer, edit
from .registry import Metric, get_metric, list_metrics, metric
from .text import plain
from .vqa import vqa, vqa_plain, vqav2

__all__ = [
    "Metric",
    "anls",
    "cer",
    "contains",
    "edit",
    "exact",
    "get_metric",
    "gqa",
    "letter",
    "list_metrics",
    "metric",
    "mme",
    "mme_images",
    "mme_label",
    "mme_scores",
    "plain",
    "pope",
    "pope_codes",
    "pope_scores",
    "relaxed",
    "vqa",
    "vqa_plain",
    "vqav2",
    "yesno",
]
