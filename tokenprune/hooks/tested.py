"""Which versions of transformers the tests have run with: the hooks rest on facts of its insides."""

from __future__ import annotations

import re
import warnings

import transformers

OLDEST, NEWEST = (5, 17), (5, 23)


def warn_untested() -> None:
    """Warn where transformers is older or newer than that; a later patch release is not."""
    version = transformers.__version__
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and not OLDEST <= tuple(map(int, found.groups())) <= NEWEST:
        low, high = (".".join(map(str, end)) for end in (OLDEST, NEWEST))
        warnings.warn(
            f"transformers {version} is outside {low} to {high}, which tokenprune is tested with; compare keep=1.0 "
            "with the unpatched model before you trust what comes out",
            stacklevel=3,
        )
