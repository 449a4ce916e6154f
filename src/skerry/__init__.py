"""Skerry: sandboxes for code that nobody reviewed.

from skerry import Sandbox

with Sandbox.create() as sandbox:
    print(sandbox.run_code("1 + 1").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skerry.sdk import (
        AsyncSandbox,
        AsyncSnapshot,
        AsyncTemplate,
        AsyncVolume,
        ExecResult,
        Execution,
        ForkIncomplete,
        Image,
        ReadOnly,
        Restart,
        Sandbox,
        ShownResult,
        Snapshot,
        Template,
        Volume,
    )

__version__ = "0.1.0"
__all__ = [
    "AsyncSandbox", "AsyncSnapshot", "AsyncTemplate", "AsyncVolume", "ExecResult", "Execution", "ForkIncomplete",
    "Image", "ReadOnly", "Restart", "Sandbox", "ShownResult", "Snapshot", "Template", "Volume", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The SDK is loaded when it is first used: the server and the CLI's help do not need it."""
    if name in __all__:
        from skerry import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module 'skerry' has no attribute {name!r}")
