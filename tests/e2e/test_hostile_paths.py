"""Paths and files chosen to make the file API leave the sandbox, hang or lie."""

from collections.abc import Iterator

import pytest

from skerry import Sandbox
from skerry.errors import Error

from .conftest import Server


@pytest.fixture(scope="module")
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a\0b", "request.invalid"),
        ("", "file.invalid_path"),
        ("/" + "x" * 300, "file.invalid_path"),
        ("/x" * 3000, "file.invalid_path"),
        ("/nowhere/at/all", "file.not_found"),
        ("/etc/shadow", "file.permission_denied"),
        ("/etc", "file.is_directory"),
        ("/etc/passwd/x", "file.not_directory"),
    ],
)
def test_bad_paths_have_their_own_errors(sandbox: Sandbox, path: str, code: str) -> None:
    with pytest.raises(Error) as caught:
        sandbox.files.read(path)
    assert caught.value.code in {code, "request.invalid"} if code == "file.invalid_path" else caught.value.code == code
    assert caught.value.message


def test_dots_stay_inside_the_sandbox(sandbox: Sandbox) -> None:
    assert sandbox.files.read("/../../../../etc/hostname") == sandbox.files.read("/etc/hostname")
    assert "user:x:1000" in sandbox.files.read("../../etc/passwd")


def test_links_lead_to_the_sandboxs_own_files(sandbox: Sandbox) -> None:
    sandbox.exec("ln -s /etc/passwd link; ln -s / root; ln -s loop loop")
    assert sandbox.files.read("link") == sandbox.files.read("/etc/passwd")
    assert sandbox.files.read("root/etc/hostname") == sandbox.files.read("/etc/hostname")
    with pytest.raises(Error) as caught:
        sandbox.files.read("loop")
    assert caught.value.code == "file.invalid_path"
    with pytest.raises(Error) as caught:
        sandbox.files.write("link", "mine now")
    assert caught.value.code == "file.permission_denied"


def test_removing_a_link_keeps_its_target(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p keep && touch keep/me && ln -sfn keep gone")
    sandbox.files.remove("gone", recursive=True)
    assert [entry.name for entry in sandbox.files.list("keep")] == ["me"]


@pytest.mark.parametrize("path", ["/tmp/fifo", "/dev/zero", "/dev/stdin"])
def test_what_is_no_file_is_refused_at_once(sandbox: Sandbox, path: str) -> None:
    sandbox.exec("mkfifo /tmp/fifo 2>/dev/null || true")
    with pytest.raises(Error) as caught:
        sandbox.files.read(path)
    assert caught.value.code in {"file.not_regular", "file.not_found"}


def test_magic_links_of_the_agent_are_out_of_reach(sandbox: Sandbox) -> None:
    paths = ("/proc/1/root/etc/shadow", "/run/skerry/link/token", "/proc/1/fd/3", "/proc/1/environ", "/proc/1/mem")
    for path in (*paths, "/proc/self/environ", "/proc/thread-self/maps", "/proc/1/task/1/environ"):
        with pytest.raises(Error):
            sandbox.files.read(path)
    with pytest.raises(Error):
        sandbox.files.write("/proc/1/mem", "anything")
    assert sandbox.files.read("/proc/version").startswith("Linux version"), "what is for all can be read"


def test_names_are_bytes_that_survive(sandbox: Sandbox) -> None:
    for name in ("ünïcode", "with space", "new\nline", "%2e%2e", "-rf", "\u00e9", "e\u0301"):
        sandbox.files.write(f"/home/user/names/{name}", name)
        assert sandbox.files.read(f"/home/user/names/{name}") == name
    assert len(sandbox.files.list("/home/user/names")) == 7


def test_a_body_that_breaks_off_changes_nothing(sandbox: Sandbox, server: Server) -> None:
    sandbox.files.write("/home/user/whole", "old content")
    server.send_raw(
        f"PUT /v1/sandboxes/{sandbox.id}/files?path=/home/user/whole HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {server.api_key}\r\ncontent-length: 1000000\r\n\r\nonly this".encode()
    )
    assert sandbox.files.read("/home/user/whole") == "old content"
    assert [entry.name for entry in sandbox.files.list("/home/user") if "whole" in entry.name] == ["whole"]


def test_binary_content_survives(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 5000
    sandbox.files.write("/home/user/binary", content)
    assert sandbox.files.read_bytes("/home/user/binary") == content
    echoed = sandbox.exec(["cat", "/home/user/binary"], text=False)
    assert echoed.stdout == content
