"""Lifetime, listing, and what happens to those who come too late."""

import datetime
import os
import time

import e2b
import pytest
from e2b import AuthenticationException, SandboxException, SandboxQuery, SandboxState, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox


def test_it_runs_until_it_is_killed(sandbox):
    assert sandbox.is_running()
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    assert not sandbox.is_running()
    with pytest.raises((SandboxException, TimeoutException)):
        sandbox.commands.run("true")


def test_it_tells_what_it_is(sandbox, mark):
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.template_id == "base"
    assert info.metadata == mark
    assert info.state == SandboxState.RUNNING
    assert datetime.timedelta(seconds=100) < info.end_at - info.started_at <= datetime.timedelta(seconds=121)


def test_it_is_found_by_its_metadata_at_once(sandbox, mark):
    found = Sandbox.list(query=SandboxQuery(metadata=mark))
    assert [info.sandbox_id for info in found.next_items()] == [sandbox.sandbox_id]
    assert not found.has_next
    nothing = Sandbox.list(query=SandboxQuery(metadata={**mark, "more": "x"}))
    assert nothing.next_items() == []


def test_lists_come_by_pages(mark):
    sandboxes = [Sandbox.create("base", timeout=60, metadata=mark) for _ in range(3)]
    try:
        pages = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2)
        first = pages.next_items()
        assert len(first) == 2
        assert pages.has_next
        second = pages.next_items()
        assert not pages.has_next
        ids = [info.sandbox_id for info in first + second]
        assert ids == [sandbox.sandbox_id for sandbox in reversed(sandboxes)]
    finally:
        for sandbox in sandboxes:
            sandbox.kill()


def test_timeouts_can_be_changed_and_connecting_only_extends(sandbox):
    sandbox.set_timeout(300)
    later = sandbox.get_info().end_at
    again = Sandbox.connect(sandbox.sandbox_id, timeout=10)
    assert again.get_info().end_at == later
    assert again.commands.run("echo connected").stdout == "connected\n"
    sandbox.set_timeout(0)
    assert not sandbox.is_running()


def test_a_time_out_ends_it():
    sandbox = Sandbox.create("base", timeout=1)
    with pytest.raises((SandboxException, TimeoutException)):
        sandbox.commands.run("sleep 30")
    assert not sandbox.is_running()


def test_mistakes_are_told(mark):
    with pytest.raises(SandboxException, match="no-such-template"):
        Sandbox.create("no-such-template")
    with pytest.raises(SandboxException, match="Timeout must be greater than 0"):
        Sandbox.create("base", timeout=-1)
    with pytest.raises(SandboxException):
        Sandbox.connect("sbnothere")
    with pytest.raises(AuthenticationException):
        Sandbox.create("base", metadata=mark, api_key="e2b_" + "0" * 40)


def test_use_is_measured(sandbox):
    metric = sandbox.get_metrics()[-1]
    assert metric.cpu_count >= 1
    assert 0 < metric.mem_used < metric.mem_total
    deadline = time.monotonic() + 30
    while len(metrics := sandbox.get_metrics()) < 3:
        assert time.monotonic() < deadline, metrics
        time.sleep(0.5)
    assert [metric.timestamp for metric in metrics] == sorted(metric.timestamp for metric in metrics)
    first = metrics[0].timestamp
    assert sandbox.get_metrics(end=first)[-1].timestamp < metrics[-1].timestamp
    assert sandbox.get_metrics(start=metrics[-1].timestamp + datetime.timedelta(hours=1)) == []


async def test_asynchronously(async_sandbox, mark):
    assert await async_sandbox.is_running()
    info = await async_sandbox.get_info()
    assert info.metadata == mark
    assert (await AsyncSandbox.get_info(async_sandbox.sandbox_id)).sandbox_id == async_sandbox.sandbox_id
    await async_sandbox.set_timeout(200)
    assert (await async_sandbox.get_info()).end_at > info.end_at
    same = await AsyncSandbox.connect(async_sandbox.sandbox_id, timeout=10)
    assert (await same.commands.run("echo same")).stdout == "same\n"
    pages = AsyncSandbox.list(query=SandboxQuery(metadata=mark))
    assert [item.sandbox_id for item in await pages.next_items()] == [async_sandbox.sandbox_id]
    assert not pages.has_next
    assert (await async_sandbox.get_metrics())[-1].mem_used > 0
    assert await async_sandbox.kill() is True
    assert not await async_sandbox.is_running()
    assert await AsyncSandbox.kill(async_sandbox.sandbox_id) is False
    with pytest.raises(SandboxException, match="no-such-template"):
        await AsyncSandbox.create("no-such-template")


def test_a_client_of_ones_own(monkeypatch):
    if not hasattr(e2b, "E2B"):
        return  # newer clients have it
    key = os.environ["E2B_API_KEY"]
    monkeypatch.setenv("E2B_API_KEY", "e2b_" + "0" * 40)
    client = e2b.E2B(api_key=key)
    sandbox = client.Sandbox.create("base", timeout=60)
    try:
        assert sandbox.commands.run("echo of the client").stdout == "of the client\n"
        assert client.Template.exists("base")
    finally:
        sandbox.kill()
    with pytest.raises(AuthenticationException):
        e2b.Sandbox.create("base")
