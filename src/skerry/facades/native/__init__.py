"""The native HTTP API (docs/reference/http-api.md)."""

from skerry.facades.native.app import create_app

__all__ = ["create_app"]
