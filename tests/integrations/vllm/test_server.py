"""The OpenAI-compatible server with its engine in a process of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("vllm")

from PIL import Image

from tools.serving import as_url, chat, server

from .checkpoints import save

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

OVERRIDES = {
    "architectures": ["TokenPruneLlavaForConditionalGeneration"],
    "tokenprune": {"method": "divprune", "keep": 0.4},
}
TOKENS = 25  # of a picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llava", tmp_path_factory.mktemp("llava"))


def post(address: str, **more) -> tuple[int, dict]:
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    body = json.dumps(chat(as_url(Image.fromarray(picture)), "where is the red square?", **more)).encode()
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def prompt(address: str, **more) -> int:
    status, answer = post(address, **more)
    assert status == 200, answer
    return answer["usage"]["prompt_tokens"]


def test_budgets_of_the_server_and_of_trusted_requests(model, tmp_path):
    options = ("--max-model-len", "256", "--enforce-eager", "--trust-request-mm-kwargs")
    with server(model, OVERRIDES, *options, log=tmp_path / "log") as address:
        text = prompt(address) - 10

        def with_budget(**wanted) -> int:
            return prompt(address, mm_processor_kwargs={"tokenprune": wanted}) - text

        assert with_budget(keep=1.0) == TOKENS
        assert with_budget(keep=0.2) == 5
        assert with_budget(image={"keep": 3}) == 3
        assert with_budget() == 10 == prompt(address) - text, "and each has its own place in the caches"
        for wrong in ({"keep": 0}, {"keep": 2.0}, {"method": "uniform"}, "half"):
            status, answer = post(address, mm_processor_kwargs={"tokenprune": wrong})
            assert status == 400, (wrong, answer)
        assert prompt(address) - text == 10, "and the server goes on answering"


def test_budgets_of_requests_that_are_not_trusted(model, tmp_path):
    options = ("--max-model-len", "256", "--enforce-eager")
    with server(model, OVERRIDES, *options, log=tmp_path / "log") as address:
        assert prompt(address) > 10
        assert post(address, mm_processor_kwargs={"tokenprune": {"keep": 1.0}})[0] == 400
