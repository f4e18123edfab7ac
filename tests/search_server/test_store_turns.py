"""Threads that read take turns: not all at once, and nobody waits for themselves."""

import threading
import time

import pytest

from search_server.errors import StoreAway
from search_server.store import Store
from search_server.store.turns import Turns

SOON = 30.0  # seconds


def test_no_more_are_in_than_there_is_room_for():
    turns, inside, most, lock = Turns(2), 0, 0, threading.Lock()
    gate = threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most
        gate.wait(SOON)
        for _ in range(50):
            with turns.taken():
                with lock:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.0005)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert (most, inside) == (2, 0)


def test_an_error_gives_the_turn_back():
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError), turns.taken():
        raise ZeroDivisionError
    entered = threading.Event()

    def enter() -> None:
        with turns.taken():
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    assert entered.wait(SOON)


def test_who_reads_may_read_within_it_and_others_follow(url):
    with Store.open(url) as store:
        job = store.create_job("a", {}, "", ["x"], "g")
        done = []

        def read() -> None:
            with store.reading():
                done.append(store.job(job).id)

        threads = [threading.Thread(target=read, daemon=True) for _ in range(12)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + SOON
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        assert done == [job] * 12


def test_nobody_waits_forever():
    turns, gone = Turns(1, longest=0.05), threading.Event()
    entered = threading.Event()

    def stay() -> None:
        with turns.taken():
            entered.set()
            gone.wait(SOON)

    threading.Thread(target=stay, daemon=True).start()
    assert entered.wait(SOON)
    with pytest.raises(StoreAway, match="has not answered"), turns.taken():
        pass
    gone.set()
