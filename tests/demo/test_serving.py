"""What is told before a server starts."""

import importlib
import os

import pytest
from typer.testing import CliRunner

from tokenprune.cli import app
from tokenprune.demo import Options, served
from tokenprune.errors import InputError, MissingExtraError


def test_without_gradio_the_extra_is_named(monkeypatch):
    real, before = importlib.import_module, dict(os.environ)

    def without(name, package=None):
        if name == "gradio":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with (
        pytest.raises(MissingExtraError, match=r"tokenprune-vlm\[demo\]"),
        served(Options(models=["tiny-llava"])),
    ):
        pass
    assert {k: v for k, v in os.environ.items() if k.startswith("GRADIO")} == {
        k: v for k, v in before.items() if k.startswith("GRADIO")
    }


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--model", "./nowhere"], "no such folder"),
        (["--model", "tiny-lava"], "tiny-llava"),
        (["--device", "toaster"], "toaster"),
        (["--dtype", "int8"], "bfloat16"),
        (["--images", "./nowhere"], "no such folder"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_loaded(args, part):
    result = CliRunner().invoke(app, ["demo", *args])
    assert result.exit_code == 2 and "error: " in result.stderr and part in result.stderr
    assert "Traceback" not in result.output


def test_a_folder_of_images_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such folder"), served(Options(images=tmp_path / "nowhere")):
        pass
