"""A LangChain deep agent that writes a program and runs it in a Skerry sandbox, through `langchain-e2b`, unmodified.

E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say which server. A scripted model stands in for a language model, so that
this runs anywhere; put `init_chat_model("…")` in its place.
"""

from __future__ import annotations

from typing import Any

from deepagents import create_deep_agent
from e2b import Sandbox
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_e2b import E2BSandbox

PROGRAM = """
primes = [n for n in range(2, 100) if all(n % d for d in range(2, n))]
print(len(primes), "primes below 100, their sum is", sum(primes))
"""


class ScriptedModel(BaseChatModel):
    """Writes the program, runs it, and repeats what it printed."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> ScriptedModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answers = [message for message in messages if isinstance(message, ToolMessage)]
        calls = [
            {"name": "write_file", "args": {"file_path": "/home/user/primes.py", "content": PROGRAM}, "id": "call-1"},
            {"name": "execute", "args": {"command": "python3 primes.py && uname -sr"}, "id": "call-2"},
        ]
        if answers:
            print(f"{answers[-1].name}: {answers[-1].text}")
        if len(answers) < len(calls):
            reply = AIMessage("", tool_calls=[calls[len(answers)]])
        else:
            reply = AIMessage(f"There are {answers[-1].text.splitlines()[0]}.")
        return ChatResult(generations=[ChatGeneration(message=reply)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


def main() -> None:
    with Sandbox.create() as sandbox:
        agent = create_deep_agent(model=ScriptedModel(), backend=E2BSandbox(sandbox=sandbox))
        done = agent.invoke({"messages": [("user", "How many primes are there below 100?")]})
        print("answer:", done["messages"][-1].content)


if __name__ == "__main__":
    main()
