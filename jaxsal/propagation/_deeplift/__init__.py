"""Differences from a reference, and multipliers that take them back to the image."""
