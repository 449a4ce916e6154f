# Generated from tests/sdk/_async/test_lifecycle.py by tools/async_to_sync.py: change that.

"""What pausing, stopping, snapshots and forks send, and what becomes of the answers."""

import json
from typing import Any

import pytest

from skerry import ForkIncomplete, Sandbox, Snapshot
from skerry.errors import HostFull, SnapshotNotFound
from skerry.models import Sandbox as SandboxInfo

KEY = "sk_test"


def sent(info: SandboxInfo) -> tuple[str, Any]:
    """The last part of the path that was called, and the body."""
    return info.metadata["path"].rpartition("/")[2], json.loads(info.metadata["sent"])


def test_a_timeout_left_out_is_another_than_none(url: str) -> None:
    sandbox = Sandbox.create(api_url=url, api_key=KEY)
    assert sent(sandbox.resume()) == ("resume", {"keep_memory": True})
    assert sent(sandbox.resume(timeout=None)) == ("resume", {"keep_memory": True, "timeout_s": None})
    assert sent(sandbox.resume(timeout=5, keep_memory=False)) == (
        "resume",
        {"keep_memory": False, "timeout_s": 5},
    )
    assert sent(sandbox.start()) == ("start", {})
    assert sent(sandbox.start(timeout=None)) == ("start", {"timeout_s": None})


def test_pause_stop_and_rollback_say_what_was_asked(url: str) -> None:
    sandbox = Sandbox.create(api_url=url, api_key=KEY)
    assert sent(sandbox.pause()) == ("pause", {"keep_memory": True, "to_disk": False})
    assert sent(sandbox.pause(keep_memory=False, to_disk=True))[1] == {"keep_memory": False, "to_disk": True}
    assert sent(sandbox.stop()) == ("stop", {"reset": False, "grace_s": 5.0})
    assert sent(sandbox.stop(reset=True, grace=0))[1] == {"reset": True, "grace_s": 0}
    assert sent(sandbox.rollback("name")) == ("rollback", {"snapshot": "name"})
    snapshot = sandbox.snapshot()
    assert sent(sandbox.rollback(snapshot))[1] == {"snapshot": "snap1"}


def test_a_sandbox_is_made_from_a_snapshot_or_its_name(url: str) -> None:
    sandbox = Sandbox.create(api_url=url, api_key=KEY)
    snapshot = sandbox.snapshot("clean")
    assert snapshot.name == "clean"
    for given, wanted in ((snapshot, "snap1"), ("clean", "clean")):
        made = Sandbox.create(snapshot=given, on_timeout="pause", auto_resume=False, api_url=url, api_key=KEY)
        body = json.loads(made.created.metadata["sent"])
        assert (body["snapshot"], body["on_timeout"], body["auto_resume"]) == (wanted, "pause", False)


def test_a_fork_gives_sandboxes(url: str) -> None:
    sandbox = Sandbox.create(api_url=url, api_key=KEY)
    assert [copy.id for copy in sandbox.fork(2)] == ["sb0", "sb1"]
    assert [type(copy) for copy in sandbox.fork()] == [Sandbox]


def test_a_fork_that_is_not_whole_raises_with_what_there_is(url: str) -> None:
    sandbox = Sandbox.create(api_url=url, api_key=KEY)
    with pytest.raises(ForkIncomplete, match="2 of 4 copies of sandbox sb1: no room") as caught:
        sandbox.fork(4)
    assert [copy.id for copy in caught.value.sandboxes] == ["sb0", "sb1"]
    assert [type(error) for error in caught.value.errors] == [HostFull, HostFull]
    assert caught.value.details["sandbox_ids"] == ["sb0", "sb1"]
    with pytest.raises(HostFull) as none:
        sandbox.fork(10)
    assert none.value.details == {"limit": 2}


def test_snapshots_are_listed_page_by_page_found_and_removed(url: str) -> None:
    listed = Snapshot.list(sandbox_id="sb1", name="n", api_url=url, api_key=KEY)
    found = [(item.id, item.name) for item in listed]
    assert found == [("snap1", "name=n&sandbox_id=sb1"), ("snap2", None)]
    clean = Snapshot.get("clean", api_url=url, api_key=KEY)
    assert clean.name == "clean"
    Snapshot.remove(clean, api_url=url, api_key=KEY)
    with pytest.raises(SnapshotNotFound):
        Snapshot.remove("missing", api_url=url, api_key=KEY)
