"""A client of `skerry mcp`, with the Model Context Protocol's official SDK: what an agent does, without the agent.

SKERRY_API_URL and SKERRY_API_KEY say which server; without them, `skerry mcp` starts one for as long as this runs.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def call(session: ClientSession, tool: str, **arguments: Any) -> None:
    """Call a tool, and print what a model would be given."""
    answer = await session.call_tool(tool, arguments)
    for block in answer.content:
        print(f"{tool}: {block.text if block.type == 'text' else f'[{block.type}]'}")


async def main() -> None:
    server = StdioServerParameters(command="skerry", args=["mcp"], env=dict(os.environ))
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        print("tools:", ", ".join(tool.name for tool in (await session.list_tools()).tools))
        await call(session, "write_file", path="sold.csv", content="month,sold\n1,5\n2,8\n3,11\n")
        await call(
            session, "run_code", code="import pandas as pd; sold = pd.read_csv('sold.csv').sold; int(sold.sum())"
        )
        await call(session, "run_code", code="sold.plot.bar();")
        await call(session, "exec", command="uname -sr; cat missing.csv")


if __name__ == "__main__":
    asyncio.run(main())
