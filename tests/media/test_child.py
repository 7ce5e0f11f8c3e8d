"""The decoding process: time limits, crashes, reuse, forks, and memory."""

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tokenprune.errors import InputError
from tokenprune.media import child, load_clip
from tokenprune.media.reading import Ask
from tokenprune.media.worker import __file__ as WORKER

from .make import numbers, write

pytest.importorskip("av")

SCRIPT = """
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

def answer(ask, send):
    if ask.label.startswith("bad"):
        {body}
    worker.answer(ask, send)

worker.main(answer)
"""


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("child") / "clip.mp4", count=30)
    return Ask(str(path), "clip.mp4", "mp4", frames=3)


@pytest.fixture
def worker(tmp_path):
    """A child whose decoder does what is said with a file named bad."""
    made = []

    def make(body, **options):
        script = tmp_path / "worker.py"
        script.write_text(SCRIPT.format(worker=WORKER, body=body))
        made.append(child.Child(script, **options))
        return made[-1]

    yield make
    for process in made:
        process.close()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_hanging_decoder_is_given_up(worker, ask):
    process = worker("time.sleep(600)")
    assert len(process.decode(ask, 60).frames) == 3
    first, begin = process.pid, time.monotonic()
    with pytest.raises(InputError, match=r"bad.mp4: not decoded within 0.5 s; given up"):
        process.decode(replace(ask, label="bad.mp4"), 0.5)
    assert 0.4 < time.monotonic() - begin < 20 and gone(first)
    assert len(process.decode(ask, 60).frames) == 3 and process.pid != first


def test_a_decoder_that_hangs_half_way(worker, ask):
    process = worker("send({'kind': 'Head', 'count': 3, 'height': 9, 'width': 9}); time.sleep(600)")
    with pytest.raises(InputError, match="not decoded within 1 s"):
        process.decode(replace(ask, label="bad.mp4"), 1.0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signals here")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its decoder died .SIGSEGV."),
        ("os._exit(3)", "its decoder died .exit code 3."),
        ("send({'kind': 'Head', 'count': 3, 'height': 9, 'width': 9}); os.abort()", "SIGABRT"),
        ("send({'kind': 'Shot', 'at': 0}, b'12345')", "its decoder died"),  # not what was announced
        (
            "send({'kind': 'Head', 'count': 9999, 'height': 9999, 'width': 9999}); time.sleep(600)",
            "pixels together",
        ),
        ("raise RuntimeError('odd')", "could not be decoded .RuntimeError: odd."),
    ],
)
def test_a_crash_names_the_file_and_the_next_clip_is_read(worker, ask, body, message):
    process = worker(body)
    with pytest.raises(InputError, match=f"bad.mp4: .*{message}"):
        process.decode(replace(ask, label="bad.mp4"), 60)
    assert len(process.decode(ask, 60).frames) == 3


def test_what_libraries_print_does_not_get_into_the_frames(worker, ask):
    process = worker("os.write(1, b'moov atom'); os.write(2, b'not found')")
    assert len(process.decode(replace(ask, label="bad but read"), 60).frames) == 3


def test_one_process_serves_many_clips_and_is_then_replaced(ask):
    process = child.Child(clips=3)
    pids = []
    for _ in range(7):
        assert len(process.decode(ask, 60).frames) == 3
        pids.append(process.pid)
    process.close()
    assert len(set(pids[:3])) == len(set(pids[3:6])) == 1 and len(set(pids)) == 3
    assert all(gone(pid) for pid in pids)


def test_an_error_keeps_the_process(ask):
    load_clip(ask.path, frames=1)
    pid = child._child.pid
    with pytest.raises(InputError):
        load_clip(ask.path, indices=[10_000])
    assert len(load_clip(ask.path, frames=3).frames) == 3 and child._child.pid == pid


def test_an_interrupt_leaves_no_half_reply(ask, monkeypatch):
    process = child.Child()
    process.decode(ask, 60)
    with monkeypatch.context() as patch:
        patch.setattr(child.Reel, "begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            process.decode(ask, 60)
    assert process.pid is None and len(process.decode(ask, 60).frames) == 3
    process.close()


def test_threads_take_turns(ask):
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(numbers(load_clip(ask.path, indices=[k])) == [k]))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def read_in_fork(path, queue):
    queue.put((numbers(load_clip(path, indices=[7])), child._child.pid))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_starts_its_own(ask):
    """As the workers of a DataLoader do, daemonic ones too."""
    load_clip(ask.path, frames=1)
    ours = child._child.pid
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    fork = context.Process(target=read_in_fork, args=(ask.path, queue), daemon=True)
    fork.start()
    shown, theirs = queue.get()
    fork.join()
    assert shown == [7] and theirs != ours
    assert len(load_clip(ask.path, frames=3).frames) == 3 and child._child.pid == ours


@pytest.mark.skipif(sys.platform == "win32", reason="processes end otherwise there")
def test_the_process_ends_with_its_parent(ask):
    """Also when the parent has no time to say so; and no `__main__` guard is needed."""
    code = (
        "import os, signal, sys, types; package = types.ModuleType('tokenprune'); package.__path__ = [sys.argv[1]];"
        "sys.modules['tokenprune'] = package; from tokenprune.media import child, load_clip;"
        "load_clip(sys.argv[2], frames=1); print(child._child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    package = Path(child.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, package, ask.path], capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(100):
        if gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
            return
        time.sleep(0.1)
    pytest.fail("the decoding process outlived its parent")


MEASURE = Path(__file__).with_name("memory.py")
SIZES = [(160, 96), (320, 240), (640, 360), (1280, 720)]
CODECS = {"a.mp4": "libx264", "b.mkv": "libx264", "c.webm": "libvpx-vp9", "d.avi": "mpeg4"}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_memory_after_200_clips_is_that_after_20(tmp_path, backend):
    """Parent and decoding process together, over clips of mixed size and codec, by one process that is not replaced."""
    if backend == "decord":
        pytest.importorskip("decord")
    for (name, codec), size in itertools.product(CODECS.items(), SIZES):
        write(tmp_path / f"{size[1]}{name}", codec, count=30, size=size)
    package = Path(child.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, MEASURE, package, tmp_path, backend, "1000"],
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["clips"] == 200 and found["after_200"] <= 1.05 * found["after_20"], found
