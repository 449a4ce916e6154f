# Generated from tests/sdk/_async/__init__.py by tools/async_to_sync.py: change that.

