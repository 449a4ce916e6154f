"""Isolation technologies: each module implements `ports.Driver`."""
