"""An agent of the OpenAI Agents SDK whose shell is in a Skerry sandbox, through the SDK's own E2B client, unmodified.

E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say which server. A scripted model stands in for a language model, so that
this runs anywhere; leave `model=` out for OpenAI's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelResponse, RunConfig, Runner, Usage, set_tracing_disabled
from agents.extensions.sandbox.e2b import E2BSandboxClient, E2BSandboxClientOptions
from agents.sandbox import SandboxAgent, SandboxRunConfig
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

COMMANDS = [
    "printf 'month,sold\\n1,5\\n2,8\\n3,11\\n' > sold.csv && ls",
    "python3 -c 'import pandas; print(pandas.read_csv(\"sold.csv\").sold.sum())'; uname -sr",
]


class ScriptedModel(Model):
    """Runs the commands one after another, and repeats what the last one printed."""

    async def get_response(
        self, system_instructions: str | None, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        answers = [item["output"] for item in input if item.get("type") == "function_call_output"]
        if answers:
            print(f"exec_command: {answers[-1]}\n")
        if len(answers) < len(COMMANDS):
            arguments = json.dumps({"cmd": COMMANDS[len(answers)]})
            number = f"call-{len(answers)}"
            reply: Any = ResponseFunctionToolCall(
                id=number, call_id=number, name="exec_command", arguments=arguments, type="function_call"
            )
        else:
            total = answers[-1].split("Output:\n")[-1].splitlines()[0]
            said = ResponseOutputText(text=f"{total} were sold.", type="output_text", annotations=[])
            reply = ResponseOutputMessage(
                id="answer", content=[said], role="assistant", status="completed", type="message"
            )
        return ModelResponse(output=[reply], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


async def main() -> None:
    set_tracing_disabled(True)  # traces would go to OpenAI
    agent = SandboxAgent(name="analyst", instructions="Answer with the files in the workspace.", model=ScriptedModel())
    sandbox = SandboxRunConfig(client=E2BSandboxClient(), options=E2BSandboxClientOptions(sandbox_type="e2b"))
    done = await Runner.run(agent, "How many were sold?", run_config=RunConfig(sandbox=sandbox))
    print("answer:", done.final_output)


if __name__ == "__main__":
    asyncio.run(main())
