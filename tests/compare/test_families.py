"""A local folder of every listed family goes through `compare`: answers, report and pictures."""

import pytest
from PIL import Image

from tests.tiny.models import FAMILIES
from tokenprune.compare import check_settings, compare, load_chat, make_examples, write_figures

from .checkpoints import BUILDERS, save


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    Image.effect_noise((80, 40), 90).convert("RGB").save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_a_folder_runs_through_compare(family, picture, tmp_path):
    chat = load_chat(str(save(family, tmp_path / family)))
    examples, _ = make_examples([str(picture)], ["what is in the image?"])
    settings = check_settings(["uniform", "pool", "flashvlm" if FAMILIES[family].attends else "divprune"], [0.5])
    found = compare(chat, examples, settings, max_new_tokens=2, repeats=0)
    assert [a.error for a in found.answers] == [None] * 5
    for answer in found.answers[2:]:
        (image,) = answer.report.images
        assert image.after == max(1, int(image.before * 0.5 + 0.5)) == len(image.kept)
    blind = "an even grey picture" if family == "paligemma" else "text only"
    assert found.protocol["blind"].startswith(blind)
    sheet, *others = write_figures(found, tmp_path)
    assert len(others) == 3
    with Image.open(sheet) as page:
        assert len(page.convert("RGB").getcolors(1 << 24)) > 100
