"""Bring your own model."""
