"""Weights from files and the hub: formats, loading and saving."""
