"""Finds a recipe's numbers on real samples."""

from .ecl import Curve, entropy_curve, plot_curve
from .focal import FocalSearch, calibration_suite, focal_search, plot_search

__all__ = [
    "Curve",
    "FocalSearch",
    "calibration_suite",
    "entropy_curve",
    "focal_search",
    "plot_curve",
    "plot_search",
]
