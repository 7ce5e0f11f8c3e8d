"""Finds a recipe's numbers on real samples."""

from .ecl import Curve, entropy_curve, plot_curve

__all__ = ["Curve", "entropy_curve", "plot_curve"]
