"""The rules: what a sandbox is, who may use it, when it ends. No HTTP above, no kernel below."""

from skerry.core.core import Core

__all__ = ["Core"]
