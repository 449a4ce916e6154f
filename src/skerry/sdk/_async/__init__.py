"""The client library that awaits."""
