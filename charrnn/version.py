"""The version, which every file that is written carries."""

__version__ = "0.1.0"
