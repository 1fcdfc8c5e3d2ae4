"""tasc: small language models generate several times faster on a task whose outputs repeat themselves."""

from tasc._core import __version__

__all__ = ["__version__"]
