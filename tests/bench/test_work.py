import os

from bench.work import Blocks, Watch, echo_server


def test_blocks_give_exactly_their_size() -> None:
    source = Blocks(3 * 1024 * 1024 + 5)
    assert sum(len(piece) for piece in iter(source.read, b"")) == 3 * 1024 * 1024 + 5
    small = Blocks(10)
    assert [len(small.read(4)) for _ in range(4)] == [4, 4, 2, 0]


def test_the_plain_server_takes_and_gives_whole_bodies() -> None:
    with echo_server() as echo:
        echo.upload("/bytes", Blocks(1_000_000), 1_000_000)
        assert echo.download("/bytes?size=1000000") == 1_000_000


def test_growth_is_seen() -> None:
    with Watch(os.getpid()) as watch:
        held = bytearray(os.urandom(1024 * 1024)) * 40
        while watch.growth_mib < 30:
            pass
    assert len(held) == 40 * 1024 * 1024
