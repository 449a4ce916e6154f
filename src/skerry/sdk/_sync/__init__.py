# Generated from src/skerry/sdk/_async/__init__.py by tools/async_to_sync.py: change that.

"""The client library that blocks."""
