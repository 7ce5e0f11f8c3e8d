import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError
from tokenprune.eval.journal import (
    Journal,
    fingerprint,
    read_manifest,
    read_records,
    read_samples,
    write_file,
    write_samples,
)

FACTS = {"model": {"name": "m"}, "batch": 2}
RECORDS = [{"row": "none", "id": str(i), "text": f"line\n{i} ünï"} for i in range(5)]


def test_what_is_appended_is_read(tmp_path):
    with Journal(tmp_path / "run", FACTS) as journal:
        journal.append(RECORDS[:2])
        journal.append([])
    with Journal(tmp_path / "run", FACTS) as journal:
        journal.append(RECORDS[2:])
    assert list(read_records(tmp_path / "run").values()) == RECORDS
    manifest = read_manifest(journal.path)
    assert manifest["facts"] == FACTS and manifest["fingerprint"] == fingerprint(FACTS)
    assert len(journal.path.read_text().splitlines()) == 6  # one manifest


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_loses_at_most_its_last_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    with Journal(folder, FACTS) as journal:
        journal.append(RECORDS)
    whole = journal.path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    journal.path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    assert len(read_records(folder)) == max(0, lines - 1)
    with Journal(folder, FACTS) as journal:  # goes on behind the last whole line
        journal.append(RECORDS)
    assert journal.path.read_bytes().startswith(whole[: whole[:cut].rfind(b"\n") + 1])
    assert list(read_records(folder).values()) == RECORDS
    for line in journal.path.read_text().splitlines():
        json.loads(line)


def test_another_run_is_refused_by_what_differs(tmp_path):
    Journal(tmp_path, FACTS).close()
    with pytest.raises(InputError, match="holds another run.*batch: 2 there, 4 now.*--out.*--force"):
        Journal(tmp_path, {**FACTS, "batch": 4})
    Journal(tmp_path, {**FACTS, "batch": 4}, force=True).close()


def test_a_later_answer_beats_a_failure_and_never_the_other_way(tmp_path):
    with Journal(tmp_path, FACTS) as journal:
        journal.append([{"row": "r", "id": "1", "error": "oops", "attempt": 1}])
        assert read_records(tmp_path)["r", "1"]["error"] == "oops"
        journal.append([{"row": "r", "id": "1", "text": "a", "attempt": 2}])
        journal.append([{"row": "r", "id": "1", "error": "again"}])
    assert read_records(tmp_path)["r", "1"]["text"] == "a"


def test_every_ranks_journal_counts(tmp_path):
    for rank in range(2):
        with Journal(tmp_path, FACTS, rank=rank) as journal:
            journal.append([RECORDS[rank]])
    assert len(read_records(tmp_path)) == 2


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    journal = Journal(tmp_path, FACTS)
    journal.append(RECORDS[:2])
    real = journal._file

    class Full:
        """Takes seven bytes, then there is no room."""

        def __init__(self):
            self.calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls == 1:
                return real.write(data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(real, name)

    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(InputError, match="no space left.*safe.*run it again"):
        journal.append(RECORDS[2:])
    assert list(read_records(tmp_path).values()) == RECORDS[:2]
    with Journal(tmp_path, FACTS) as again:
        again.append(RECORDS[2:])
    assert list(read_records(tmp_path).values()) == RECORDS


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_that_is_really_full(tmp_path):
    journal = Journal(tmp_path, FACTS)
    journal._file.close()
    journal._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(InputError, match="no space left"):
        journal.append(RECORDS)


def test_files_are_whole_or_old(tmp_path, monkeypatch):
    write_file(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(InputError, match="a.json: cannot be written"):
        write_file(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_samples_come_back(tmp_path):
    write_samples(tmp_path, [{"id": "1", "answers": ["ü"]}])
    assert read_samples(tmp_path) == [{"id": "1", "answers": ["ü"]}]
    with pytest.raises(InputError, match="no folder of a run"):
        read_samples(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the journal"):
        Journal(tmp_path / "file" / "run", FACTS)
