"""Constructed models."""
