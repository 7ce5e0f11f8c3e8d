import re
import warnings
from pathlib import Path

import pytest

from tests.tiny.models import FAMILIES
from tokenprune import patch_model
from tokenprune.hooks import tested
from tokenprune.hooks.tested import NEWEST, OLDEST, warn_untested

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", ["5.16.9", "4.57.1", "5.24.0", "6.0.0.dev0"])
def test_a_patch_warns_outside_the_tested_range(monkeypatch, version):
    monkeypatch.setattr(tested.transformers, "__version__", version)
    with pytest.warns(UserWarning, match=re.escape(f"transformers {version} is outside 5.17 to 5.23")) as seen:
        patch_model(FAMILIES["llava"].build(), "uniform").remove()
    assert seen[0].filename == __file__, "it points at the caller's line"


@pytest.mark.parametrize("version", ["5.17.0", "5.23.7", "5.20.0rc1"])
def test_and_is_silent_inside(monkeypatch, version):
    monkeypatch.setattr(tested.transformers, "__version__", version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_untested()


def test_the_range_is_the_one_that_is_installed_for_the_tests():
    low = re.search(r'"transformers>=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    high = re.search(r"^transformers==(\d+)\.(\d+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert [tuple(map(int, found.groups())) for found in (low, high)] == [OLDEST, NEWEST]
