"""Slow, obviously right twins of the compiled half; property tests compare the two."""

from tasc.reference.index import NaiveIndex

__all__ = ["NaiveIndex"]
