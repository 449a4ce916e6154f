"""Host end of the agent protocol (docs/reference/agent-protocol.md). The agent is hostile, always."""

from skerry.agentlink.link import Link
from skerry.agentlink.listener import Listener

__all__ = ["Link", "Listener"]
