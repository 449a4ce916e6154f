"""How much to measure, and on what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Handed to every suite."""

    quick: bool
    """A few samples of everything: proves that the benchmarks run, not how fast Skerry is."""
    rootfs: Path
    """The base template's root file system, for what is started by hand."""
    scratch: Path
    """A directory that is removed after the run."""
    thousand: bool = False
    """A thousand sandboxes at rest, which takes minutes to make, in place of a hundred."""

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        return quick if self.quick else full


class NoImage(Exception):
    """There is no image to start anything from."""


def base_rootfs() -> Path:
    """The base template's root file system; `SKERRY_BENCH_ROOTFS` overrides it.

    Raises:
        NoImage: it is not built yet.
    """
    if given := os.environ.get("SKERRY_BENCH_ROOTFS"):
        return Path(given)
    from skerry.config import Settings as ServerSettings
    from skerry.host.images import Images

    images = Images(ServerSettings().images_dir)
    try:
        return images.trees(images.template("base").image)[0]
    except Exception as error:
        raise NoImage(f"cannot find the base image: {error}; build it with `make image`") from error
