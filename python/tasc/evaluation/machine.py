"""Description of the machine of a measurement."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tasc.printable import counted

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def machine() -> dict[str, Any]:
    """Return processors and versions, and where torch is in use its threads and GPU, for the JSON of a run."""
    facts: dict[str, Any] = {"cpus": os.cpu_count(), "processor": _processor(), "platform": platform.platform()}
    if (torch := sys.modules.get("torch")) is not None:
        facts["threads"] = torch.get_num_threads()
        facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts | {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    """Return the version of a package; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def device_name(device: Any) -> str:
    """Return the name of a torch device in words: a GPU's, or cores in use and the processor's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{counted(torch.get_num_threads(), 'core')} of {_processor()}" if device.type == "cpu" else str(device.type)
