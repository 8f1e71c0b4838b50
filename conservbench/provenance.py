"""Where a number comes from: code, packages, machine and settings, as one JSON attribute. No user, host or path."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "mace-torch", "e3nn", "ase", "vesin", "numpy", "xarray", "h5netcdf", "safetensors")
"""Distributions whose version may move a number, or is needed to read the file."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""On Linux, a random number of the last start of the machine."""


def provenance(
    *, device: str, dtype: str, threads: int, seeds: Mapping[str, int], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything needed to measure a cell again, and to find out why it came out different.

    Args:
        device: what the model ran on.
        dtype: precision it ran in.
        threads: of one process.
        seeds: name to random seed.
        digests: card to its digest, ``system`` to name and version, and settings that name data to its checksum.
    """
    return {
        "conservbench": version_of("conservbench"),
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "boot": boot(),
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "seeds": dict(seeds),
        "digests": dict(digests),
    }


def machine_of(found: Mapping[str, Any]) -> tuple[str, ...]:
    """What times and memory depend on beside the model: the running machine, its kind, the device and the threads.

    Args:
        found: what :func:`provenance` gave.
    """
    return tuple(str(found.get(key)) for key in ("boot", "processor", "device", "threads"))


def data_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The data that a measurement rests on: the setting that names it, and its checksum.

    Args:
        found: what :func:`provenance` gave.
    """
    return {key: value for key, value in found.get("digests", {}).items() if key not in ("model", "protocol", "system")}


def on_one_machine(found: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all were measured, with as many threads, on one device of one running machine that is known.

    Args:
        found: what :func:`provenance` gave for each.
    """
    every = list(found)
    return all(each.get("boot") for each in every) and len(set(map(machine_of, every))) <= 1


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def git_state() -> dict[str, Any] | None:
    """Commit of the checkout the package runs from, and whether tracked files differ; None outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def processor() -> str:
    """Name of the processor."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def boot() -> str | None:
    """What two results share only if one machine measured both since it was started; None where nothing tells.

    A digest of a random number that Linux draws at every start, so that it names no machine.
    """
    if not BOOT_ID.is_file():
        return None
    return hashlib.sha256(BOOT_ID.read_bytes().strip()).hexdigest()[:16]


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
