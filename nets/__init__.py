"""Architectures: parameters and a forward; no Lightning, no loss, no files."""
