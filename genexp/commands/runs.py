"""`genexp runs`."""

from genexp.runs.find import main

__all__ = ["main"]
