"""Who waits for a turn, and who does not. Does not need the extra `serve`."""

import threading
import time

import pytest

from omgvision.serving.turns import Busy, Gone, Turns

PATIENCE = 30


def test_first_come_first_served():
    turns, served, waiting = Turns(waiting=3), [], []

    def visit(number: int) -> None:
        with turns.turn():
            served.append(number)

    with turns.turn():
        for number in range(3):
            waiting.append(threading.Thread(target=visit, args=(number,)))
            waiting[-1].start()
            while len(turns._line) < number + 2:
                time.sleep(0.01)
        with pytest.raises(Busy, match="3 questions wait"), turns.turn():
            pytest.fail("nobody refused it")
        assert served == []
    for thread in waiting:
        thread.join(PATIENCE)
    assert served == [0, 1, 2]
    with turns.turn():  # whoever was refused may come again
        pass


def test_who_has_left_waits_no_longer():
    turns, gone, left = Turns(waiting=1), threading.Event(), threading.Event()

    def visit() -> None:
        with pytest.raises(Gone), turns.turn(gone=gone):
            pytest.fail("it had left")
        left.set()

    with turns.turn():
        threading.Thread(target=visit).start()
        assert not left.wait(0.1)
        gone.set()
        assert left.wait(PATIENCE)
    with pytest.raises(ValueError), turns.turn():
        raise ValueError
    with turns.turn():  # what goes wrong in a turn ends it
        pass
