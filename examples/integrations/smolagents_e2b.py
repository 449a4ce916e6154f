"""A smolagents CodeAgent whose code runs in a Skerry sandbox, through its own E2B executor, unmodified.

E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say which server. A scripted model stands in for a language model, so that
this runs anywhere; put `InferenceClientModel()` in its place.
"""

from __future__ import annotations

from typing import Any

from smolagents import ChatMessage, CodeAgent, MessageRole, Model

STEPS = [
    """I look at the numbers first.
<code>
import platform
sold = [5, 8, 11]
mean = sum(sold) / len(sold)
print("mean", mean, "on", platform.release())
</code>""",
    """The variables are still there.
<code>
final_answer({"mean": mean, "best month": sold.index(max(sold)) + 1})
</code>""",
]


class ScriptedModel(Model):
    """One step after the other."""

    def __init__(self) -> None:
        super().__init__(model_id="scripted")
        self._steps = iter(STEPS)

    def generate(self, messages: list[ChatMessage], *args: Any, **kwargs: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=next(self._steps))


def main() -> None:
    with CodeAgent(tools=[], model=ScriptedModel(), executor_type="e2b") as agent:
        print("answer:", agent.run("What is the mean, and which month is the best?"))


if __name__ == "__main__":
    main()
