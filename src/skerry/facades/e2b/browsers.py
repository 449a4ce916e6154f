"""Pages of any origin may call E2B's services, as they may call E2B's own: what they send besides is a key or a token,
never a cookie. Programs in sandboxes decide for themselves, and the native API is not for pages."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

PAGES = Middleware(
    CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], max_age=7200,
    expose_headers=["X-Next-Token", "X-Total-Running", "Content-Disposition", "Content-Range", "Accept-Ranges"],
)  # fmt: skip
