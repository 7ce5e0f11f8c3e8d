"""HoloV: every crop of the picture gets a share of the budget, so that the whole of it stays in view."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TokenPruneError
from ..kernels import ranking, unit
from ..kernels.apportion import largest_remainder
from ..kernels.crops import even_runs, similarity_variance
from ..tokens import Selection, VisualTokens
from ._fields import check_choice, check_ints, check_numbers
from .base import Reducer, register


@register("holov")
@dataclass(frozen=True)
class HoloV(Reducer):
    """A budget for every crop, by its tower attention and the variety inside it; the best tokens of each.

    Zou et al., 2025, arXiv:2510.02912 (NeurIPS 2025). a (N,) = `saliency`, f (N, C) = `vision_features`; the tokens
    in raster order are cut into `crops` runs of equal length (bands of rows on a plain grid):

        v_i = variance of cos(f_i, f_j) over the other j of i's crop        score = a + alpha v mean(a) / mean(v)
        the budget of a crop is in proportion to its mean score; in it the tokens of largest score stay

    with alpha = 0.09 and means over the image: with means over each crop the variance would cancel out of all budgets.
    The released code multiplies a by 1000, which changes nothing here.

    Deviations. Budgets are exact: places by largest remainder, and what a crop has no tokens for goes to the others in
    proportion; the released code fills with zero vectors, which the language model then reads. It also ranks within a
    crop by attention alone: compat="official". `crops` = 8 is our choice. Where a tower gives no features before the
    projector, the projected ones are compared. Traps: with few tokens some crops get none; runs follow the order of
    the tokens, so over several crops of a high-resolution picture, or frames, they cross borders.
    """

    crops: int = 8
    alpha: float = 0.09
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ints(self, crops=(1, 2**20))
        check_numbers(self, alpha=(0, 1e4))
        check_choice(self, "compat", None, "official")

    @property
    def needs(self) -> frozenset[str]:
        """Features only where their variance counts."""
        return frozenset({"saliency", "vision_features"} if self.alpha else {"saliency"})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.shape[1]
        if tokens.saliency is None:
            raise TokenPruneError("holov needs the vision tower's attention")
        with ranking(tokens.features):
            a = scores = tokens.saliency.float()
            runs = even_runs(n, min(self.crops, n), a.device)
            if self.alpha:
                source = tokens.features if tokens.vision_features is None else tokens.vision_features
                v = similarity_variance(unit(source), runs)
                scale = a.mean(1, keepdim=True) / v.mean(1, keepdim=True).clamp_min(1e-12)
                scores = a + self.alpha * scale * v
            sheet = runs.sheet
            mean = sheet.means(sheet.lay(scores).unsqueeze(3)).squeeze(2)
            budget = largest_remainder(mean, keep, runs.size)  # (S, P)
            value = a if self.compat == "official" else scores
            return Selection(sheet.best(sheet.lay(value), budget), scores=scores)
