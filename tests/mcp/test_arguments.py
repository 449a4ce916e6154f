"""What tools tell clients about their arguments."""

import pytest

from skerry.mcp.sandboxes import Offer, Sandboxes
from skerry.mcp.tools import _Tools


@pytest.mark.parametrize("implicit", [True, False])
def test_schemas_are_complete_and_say_whether_a_sandbox_must_be_named(implicit: bool) -> None:
    tools = {tool.name: tool.described() for tool in _Tools(Sandboxes(Offer(), implicit=implicit)).table()}
    assert set(tools) == {
        "run_code", "exec", "read_file", "write_file", "list_files", "port_url", "create_sandbox", "list_sandboxes",
        "kill_sandbox",
    }  # fmt: skip
    for tool in tools.values():
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name} does not say what {name} is"
    assert ("sandbox_id" in tools["exec"].input_schema["required"]) is not implicit
