"""Sandboxes on this machine: warm pools, one supervised task for each sandbox, recovery after a crash."""

from skerry.node.node import Node
from skerry.node.pool import PoolSettings

__all__ = ["Node", "PoolSettings"]
