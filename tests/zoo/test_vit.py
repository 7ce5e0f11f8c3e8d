"""The embedded tower of the crater suite: timm's own class, small, and as good as its card says."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")
from tokenprune.errors import InputError
from tokenprune.zoo import craters, vit
from tokenprune.zoo.recipes import RECIPES

shipped = pytest.mark.skipif(
    not vit.FOLDER.exists(), reason="the tower is trained by its recipe and not here yet"
)


def test_it_is_a_plain_tower_of_timm():
    from timm.models.vision_transformer import VisionTransformer

    tower = vit.make_tower()
    assert type(tower) is VisionTransformer
    assert tower.patch_embed.num_patches == vit.GRID**2 == 196 and tower.num_prefix_tokens == 1
    assert tower.pretrained_cfg["input_size"] == (3, 112, 112)


def test_where_it_is_missing_the_recipe_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(vit, "FOLDER", tmp_path / "crater_vit")
    for ask in (vit.load_tower, vit.info):
        with pytest.raises(InputError, match=r"tokenprune.zoo.train crater-vit"):
            ask()


def test_it_comes_back_as_it_was_written_in_half_precision(monkeypatch, tmp_path):
    monkeypatch.setattr(vit, "FOLDER", tmp_path)
    tower = vit.make_tower()
    vit.save_tower(tower, tmp_path)
    again = vit.load_tower()
    assert not again.training
    for (name, a), b in zip(tower.state_dict().items(), again.state_dict().values()):
        assert (a.half().float() == b).all(), name


@shipped
def test_its_card():
    card = vit.info()
    assert card["name"] == vit.NAME and card["version"] == RECIPES[vit.NAME].version
    asked = {key: card["suite"][key] for key in ("split", "identities", "asked", "seed")}
    assert craters.suite(**asked).hash() == card["suite"]["hash"]
    assert (vit.FOLDER / "model.safetensors").stat().st_size <= 12 * 2**20
    assert sum(p.numel() for p in vit.load_tower().parameters()) == card["parameters"]


@shipped
def test_the_suite_tells_one_vector_from_many():
    """Neither solved nor hopeless, and one vector is not enough."""
    scores = vit.info()["scores"]
    assert 0.60 <= scores["map_late"] <= 0.95 and scores["map_class"] <= scores["map_late"] - 0.10


@shipped
@pytest.mark.slow
def test_it_is_as_good_as_its_card():
    from tokenprune.zoo.training.craters import validate

    found = validate(vit.load_tower(), "test", identities=60, asked=12, seed=3, each=2)
    assert found["map_late"] > vit.info()["scores"]["map_late"] - 0.12  # three standard errors of 12 craters
