"""Colours of curves and bars: Okabe and Ito's, which colour-blind readers tell apart."""

from __future__ import annotations

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
GREY = "#777777"
