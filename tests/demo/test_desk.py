"""One at a time, in order, with a way out: no model is needed to see that."""

import threading
import time

import pytest

from tokenprune.demo.desk import Cancelled, Desk, Job, Sessions, Waiting
from tokenprune.demo.live import said_of
from tokenprune.errors import InputError

CHAT = object()


def news(desk, work, job=None, into=None):
    out = [] if into is None else into
    for item in desk.serve(job or Job(), work):
        out.append(item)
    return out


def test_work_is_done_in_order_and_never_two_at_a_time():
    desk, running, most, order = Desk("m", lambda: CHAT), [], [], []
    gate = threading.Event()

    def work(number):
        def do(chat, put):
            assert chat is CHAT
            running.append(number)
            most.append(len(running))
            gate.wait(5)
            order.append(number)
            put(number)
            running.remove(number)

        return do

    told = {n: [] for n in range(3)}
    threads = []
    for n in range(3):
        threads.append(threading.Thread(target=news, args=(desk, work(n)), kwargs={"into": told[n]}))
        threads[-1].start()
        while len(desk._line) <= n:
            time.sleep(0.01)
    time.sleep(0.5)  # long enough to be told their places
    gate.set()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2] and max(most) == 1
    assert told[0] == [0] and told[1] == [Waiting(1), 1]
    assert Waiting(2) in told[2] and told[2][-1] == 2
    assert desk.idle


def test_a_cancelled_job_ends_and_lets_the_next_one_in():
    desk, job, left = Desk("m", lambda: CHAT), Job(), []

    def endless(chat, put):
        try:
            while True:
                put("word")
                time.sleep(0.01)
        finally:
            left.append(True)  # where a patch is taken off

    heard = []
    with pytest.raises(Cancelled):
        for item in desk.serve(job, endless):
            heard.append(item)
            if len(heard) == 3:
                job.cancel()
    assert heard == ["word"] * 3
    assert news(desk, lambda chat, put: put("next"))[-1] == "next"
    assert left == [True]


def test_a_job_cancelled_in_the_line_is_never_started():
    desk, gate, second = Desk("m", lambda: CHAT), threading.Event(), Job()
    first = threading.Thread(target=news, args=(desk, lambda chat, put: gate.wait(5)))
    first.start()
    started, ended = [], []

    def follow():
        with pytest.raises(Cancelled):
            news(desk, lambda chat, put: started.append(1), second)
        ended.append(True)

    follower = threading.Thread(target=follow)
    follower.start()
    second.cancel()
    follower.join(5)
    gate.set()
    first.join(5)
    assert ended == [True] and started == []
    assert news(desk, lambda chat, put: put(1)) == [1]


def test_a_closed_iterator_cancels_its_job():
    desk, job = Desk("m", lambda: CHAT), Job()

    def endless(chat, put):
        while True:
            put(0)
            time.sleep(0.01)

    stream = desk.serve(job, endless)
    next(stream)
    stream.close()
    assert job.cancelled
    assert news(desk, lambda chat, put: put(1)) == [1]


def test_errors_reach_who_asked_and_nobody_else():
    desk = Desk("m", lambda: CHAT)

    def broken(chat, put):
        raise InputError("bad picture")

    with pytest.raises(InputError, match="bad picture"):
        news(desk, broken)
    assert news(desk, lambda chat, put: put(1)) == [1]


def test_a_model_that_cannot_be_loaded_is_tried_again():
    tries = []

    def load():
        tries.append(1)
        if len(tries) == 1:
            raise InputError("no such model")
        return CHAT

    desk = Desk("m", load)
    with pytest.raises(InputError, match="no such model"):
        news(desk, lambda chat, put: None)
    assert news(desk, lambda chat, put: put(chat is CHAT)) == [True]


def test_a_session_has_one_job_and_sessions_do_not_touch_each_other():
    sessions = Sessions()
    one, other = sessions.start("a"), sessions.start("b")
    again = sessions.start("a")
    assert one.cancelled and not other.cancelled and not again.cancelled
    sessions.stop("a")
    sessions.stop("nobody")
    assert again.cancelled and not other.cancelled
    assert not sessions.start(None).cancelled and not sessions.start(None).cancelled
    with pytest.raises(Cancelled):
        again.check()


def test_sessions_that_wait_for_nothing_are_forgotten(monkeypatch):
    monkeypatch.setattr("tokenprune.demo.desk.REMEMBERED", 3)
    sessions = Sessions()
    waiting = sessions.start("a")
    for number in range(9):
        sessions.start(f"done-{number}").cancel()
    assert len(sessions._jobs) <= 3 and not waiting.cancelled
    sessions.start("a")
    assert waiting.cancelled


def test_what_a_page_says_of_errors():
    assert said_of(InputError("a.png: broken")) == "a.png: broken"
    said = said_of(RuntimeError("/secret/path"))
    assert "/secret" not in said and "RuntimeError" in said
    assert "smaller" in said_of(RuntimeError("CUDA out of memory. Tried ..."))
