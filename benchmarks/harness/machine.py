"""What a figure was measured on: no absolute claim without its machine and its load."""

import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "ai-edge-litert", "tensorflow", "keras")


def machine() -> dict[str, object]:
    """Return processor, cores, memory, versions, and the load average at this moment."""
    return {
        "processor": _from_proc("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _from_proc(path: str, key: str) -> str:
    file = Path(path)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
