"""The `tasc` command: one file per command group; `main` is the console script."""

from tasc.cli.app import app, main

__all__ = ["app", "main"]
