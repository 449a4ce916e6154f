"""The client library. `Sandbox` blocks, `AsyncSandbox` awaits; all else is the same.

The asynchronous half is written, the other one is generated from it by `tools/async_to_sync.py`.
"""

from skerry.models import Restart
from skerry.sdk._async.sandbox import AsyncSandbox
from skerry.sdk._async.snapshot import AsyncSnapshot
from skerry.sdk._async.template import AsyncTemplate
from skerry.sdk._async.volume import AsyncVolume
from skerry.sdk._sync.sandbox import Sandbox
from skerry.sdk._sync.snapshot import Snapshot
from skerry.sdk._sync.template import Template
from skerry.sdk._sync.volume import Volume
from skerry.sdk.image import Image
from skerry.sdk.mounts import ReadOnly
from skerry.sdk.results import ExecResult, Execution, ForkIncomplete, ShownResult

__all__ = [
    "AsyncSandbox", "AsyncSnapshot", "AsyncTemplate", "AsyncVolume", "ExecResult", "Execution", "ForkIncomplete",
    "Image", "ReadOnly", "Restart", "Sandbox", "ShownResult", "Snapshot", "Template", "Volume",
]  # fmt: skip
