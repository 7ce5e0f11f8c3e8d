"""Starts the app: only on this machine, without network, reading only what it was given."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MissingExtraError
from .examples import make_examples
from .runs import Runs
from .shelf import Loading, Shelf
from .uploads import MIB, Limits

PAGES = 64
"""Open pages whose last result is remembered."""


@dataclass(frozen=True)
class Options:
    """Everything `tokenprune demo` can be told."""

    models: Sequence[str] = ()
    allow_models: bool = False
    loading: Loading = field(default_factory=Loading)
    runs: Path | None = None
    images: Path | None = None
    limits: Limits = field(default_factory=Limits)
    threads: int = 1
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False


@dataclass(frozen=True)
class Server:
    """A running demo."""

    url: str
    public_url: str | None
    page: Any

    def wait(self) -> None:
        """Until the server is stopped."""
        self.page.block_thread()


@contextlib.contextmanager
def served(options: Options | None = None) -> Iterator[Server]:
    """The app on its port inside the block; uploads and pictures are deleted afterwards.

    Raises `MissingExtraError` without gradio, `InputError` for a model, folder or port that cannot be used.
    """
    options = options or Options()
    shelf = Shelf(options.models, options.loading, open_to_all=options.allow_models)
    runs = Runs(options.runs, options.images)
    torch.set_num_threads(options.threads)
    home = Path(tempfile.mkdtemp(prefix="tokenprune-demo-"))
    with _environment(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(home / "uploads")):
        try:
            page_module = _page()
            examples = home / "uploads" / "examples"
            examples.mkdir(parents=True)
            site_module = importlib.import_module(".site", __package__)
            site = site_module.Site(shelf, options.limits, runs, make_examples(examples, shelf.names))
            page = page_module.build_page(site)
            server = _launch(page, page_module, options)
            try:
                shelf.desk(shelf.names[0]).warm()
                yield server
            finally:
                page.close(verbose=False)
        finally:
            shelf.close()
            shutil.rmtree(home, ignore_errors=True)


def _page() -> Any:
    try:
        importlib.import_module("gradio")
    except ImportError as error:
        raise MissingExtraError.of("gradio", "demo") from error
    return importlib.import_module(".page", __package__)


def _launch(page: Any, module: Any, options: Options) -> Server:
    try:
        _, local, public = page.launch(
            server_name=options.host, server_port=options.port, share=options.share, quiet=True,
            prevent_thread_lock=True, inbrowser=False, ssr_mode=False, show_error=False, enable_monitoring=False,
            max_file_size=int(options.limits.mib * MIB), allowed_paths=[], state_session_capacity=PAGES,
            theme=module.theme(), css_paths=[module.CSS], js=module.JS.read_text(encoding="utf-8"),
            footer_links=["api"],
            _frontend=False,  # gradio asks itself for its page and gives up after 3 s, which a busy machine takes
        )  # fmt: skip
    except OSError as error:
        raise InputError(
            f"port {options.port}: cannot be used ({error}); name another with --port"
        ) from error
    return Server(local, public, page)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that gradio reads when it is imported and when components are made."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
