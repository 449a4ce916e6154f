"""A sandbox of E2B's own client, unmodified. Run by tests/e2e/test_e2b.py with each version's own interpreter."""

import uuid

import pytest
from e2b_code_interpreter import AsyncSandbox, Sandbox


@pytest.fixture
def mark():
    """Labels that only this test's sandboxes have."""
    return {"test id": f"{uuid.uuid4()}&=%"}


@pytest.fixture
def sandbox(mark):
    sandbox = Sandbox.create("base", timeout=120, metadata=mark, envs={"GLOBAL": "of the sandbox"})
    yield sandbox
    sandbox.kill()


@pytest.fixture
async def async_sandbox(mark):
    sandbox = await AsyncSandbox.create("base", timeout=120, metadata=mark, envs={"GLOBAL": "of the sandbox"})
    yield sandbox
    await sandbox.kill()
