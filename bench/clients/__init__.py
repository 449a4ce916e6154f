"""Clients in processes of their own, each in its own interpreter: told what to do, they say how long it took."""
