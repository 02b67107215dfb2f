"""The version of the package; a file of its own, so that every room can name it without importing the others."""

__version__ = "0.1.0"
