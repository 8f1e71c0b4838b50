"""Start-up choices of a measuring process: threads, memory and noise. Called, never a side effect of an import."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# glibc <malloc.h>: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
_MALLOC = {-4: 0, -1: 2**31 - 1, -2: 64 << 20}

_NOISE = (
    "Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    "The TorchScript type system doesn't support instance-level annotations",
)


def configure(threads: int = 1) -> None:
    """Set up a process that does nothing but measure or train; to be called before torch and numpy are imported.

    Args:
        threads: of numeric libraries. One thread a process and a process a core is fastest, and sums keep their order.
    """
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of mapping every large tensor anew; nothing on other systems."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in _MALLOC.items():
        libc.mallopt(option, value)


class BusyError(RuntimeError):
    """Another process holds a lock."""


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds a lock, and hold it.

    Args:
        lock: a file, made if it is not there; it stays, and whether it is there says nothing.
    """
    with _locked(lock, 0):
        yield


@contextmanager
def alone_at_once(lock: Path) -> Iterator[None]:
    """Hold a lock, or fail where another process holds it.

    Args:
        lock: as for :func:`alone`.

    Raises:
        BusyError: another process holds it.
    """
    import fcntl

    with _locked(lock, fcntl.LOCK_NB):
        yield


@contextmanager
def _locked(lock: Path, option: int) -> Iterator[None]:
    # POSIX alone has it
    import fcntl

    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        try:
            # given back by the system, however the process ends
            fcntl.flock(file, fcntl.LOCK_EX | option)
        except BlockingIOError as error:
            raise BusyError(f"{lock}: held by another process") from error
        yield


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_device(device: str) -> None:
    """Check that torch knows a device and that this machine has it.

    Args:
        device: such as ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: it does not, or there is none here.
    """
    if device == "cpu":
        return  # a run in workers needs no torch in this process
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; expected cpu, cuda, cuda:1, ...") from error
    if found.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: no CUDA device here")
    if (found.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {device!r}: no such CUDA device here; the last is 'cuda:{count - 1}'")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what third parties print to standard error: standard output belongs to results."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Drop what mace and e3nn print and warn of whenever they are loaded, none of which a user can act on."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, warnings.catch_warnings(), redirect_stdout(nowhere):
        for message in _NOISE:
            warnings.filterwarnings("ignore", message=message)
        yield
