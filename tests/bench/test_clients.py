import sys

import pytest
from bench.clients import child
from bench.clients.answer import expect, length, seconds

CLIENT = """
from bench.clients.answer import serve
def noisy():
    print('not an answer')
    return 'said'
def wrong():
    raise ValueError('no such thing')
serve({'double': lambda number: 2 * number, 'noisy': noisy, 'wrong': wrong, 'leave': lambda: exit(3)})
"""


def test_a_client_does_what_it_is_told() -> None:
    with child.started([sys.executable, "-c", CLIENT], {}) as client:
        assert client.call("double", number=21) == 42
        assert client.call("noisy") == "said"
        with pytest.raises(child.ChildFailed, match="wrong: ValueError: no such thing"):
            client.call("wrong")
        assert client.call("double", number=1) == 2, "it goes on"
        with pytest.raises(child.ChildFailed, match="leave: the client has ended"):
            client.call("leave")
        with pytest.raises(child.ChildFailed):
            client.call("double", number=1)


def test_a_silent_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "ANSWER_TIMEOUT_S", 0.2)
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with child.started(silent, {}) as client, pytest.raises(child.ChildFailed, match="the client has ended"):
        client.call("anything")


def test_a_wrong_answer_is_no_sample() -> None:
    assert length([b"12", b"345"]) == 5
    assert seconds(lambda: expect("2", "2")) >= 0
    with pytest.raises(RuntimeError, match="expected '2', and it is '3'"):
        seconds(lambda: expect("3", "2"))
