"""Skerry: sandboxes for code that nobody reviewed."""

__version__ = "0.1.0"
