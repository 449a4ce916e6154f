"""Sandboxes as tools of models: a server of the Model Context Protocol, over standard input and output or HTTP.

It is a client of a Skerry server and holds nothing of its own but the names of the sandboxes it made. The protocol is
the official SDK's; `tools.py` is the table of what models may call, `sandboxes.py` whose sandbox is meant,
`render.py` what an answer looks like to a model.
"""

from skerry.mcp.http import serve_http
from skerry.mcp.sandboxes import Offer
from skerry.mcp.stdio import serve_stdio

__all__ = ["Offer", "serve_http", "serve_stdio"]
