"""The version of the library, for files that it writes."""

__version__ = "0.1.0"
