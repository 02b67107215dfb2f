"""OmniStream: one streaming visual backbone, its three training objectives and its evaluation."""

__version__ = "0.1.0"
