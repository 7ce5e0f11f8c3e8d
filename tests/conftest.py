"""Settings every test shares: no network, one thread."""

import os

# Before any import of a Hugging Face library, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

MARKERS = {
    "slow": "takes more than a few seconds",
    "gpu": "needs a CUDA device",
    "browser": "drives a browser",
}


def pytest_configure(config):
    import torch

    torch.set_num_threads(1)
    known = {line.split(":")[0].strip() for line in config.getini("markers")}
    for name, meaning in MARKERS.items():
        if name not in known:
            config.addinivalue_line("markers", f"{name}: {meaning}")
