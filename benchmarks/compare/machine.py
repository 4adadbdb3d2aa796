"""On what was measured, and how."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def described(directory: Path) -> dict[str, Any]:
    """Processors, memory, kernel, Python, the file system that holds the data, how busy the machine is, and the command that was given.

    :param directory: where the data are.
    """
    models = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0])
    system = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processors": f"{os.cpu_count()} processors, {models[0] if models else platform.machine()}",
        "memory_gib": round(memory / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": system,
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
        "command": " ".join(["python -m benchmarks.compare", *sys.argv[1:]]),
    }
