"""Peak memory of an act, beyond what is held before it.

On a CUDA device it is what torch's allocator hands out. On a processor torch keeps no account, and models may keep
memory outside torch: there it is the resident memory of the process, whose peak Linux lets a process forget. Freed
memory, which the C library holds on to, is given back before, so that the act must ask for its own again; what it frees
in between and the library cannot use again counts, as it does in a simulation. The kernel keeps the count in parts, one
a CPU, and adds a part to what it shows once that has a batch of pages: see :func:`resolution`.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_FORGET_PEAK: Final = "5"


_LEAST_BATCH: Final = 32
"""Pages that the count of a CPU may hold back, or twice the number of CPUs if that is more (lib/percpu_counter.c)."""

_SCRAPS: Final = 1e5
"""Bytes of freed memory that cannot be given back and are used again."""


def peak_growth(act: Callable[[], object], device: torch.device) -> float:
    """Bytes by which memory grows at the peak of an act; NaN where nothing tells.

    Args:
        act: done once. What it needs on its first call alone should have been allocated before.
        device: whose memory.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        act()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device) - held)
    if device.type != "cpu" or not _give_back() or not _forget_peak():
        return math.nan
    held = _resident("VmRSS")
    act()
    return float(_resident("VmHWM") - held)


def resolution(device: torch.device) -> float:
    """Bytes by which :func:`peak_growth` may be off whatever is asked, and alike whenever it is.

    Of each of its two readings, every CPU on which the process may run holds back up to a batch of pages (Linux 6.2 and
    later; what threads held back before then is of that order). CPUs do so independently: their parts add in square.

    Args:
        device: whose memory.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return _SCRAPS
    return _SCRAPS + held_back(os.cpu_count() or 1, len(os.sched_getaffinity(0))) * os.sysconf("SC_PAGE_SIZE")


def held_back(n_cpus: int, n_allowed: int) -> float:
    """Pages that the difference of two counts may lack.

    Args:
        n_cpus: CPUs of the machine.
        n_allowed: those on which the process may run.
    """
    return 2.0 * max(_LEAST_BATCH, 2 * n_cpus) * math.sqrt(n_allowed)


def _give_back() -> bool:
    """Give freed memory back to the system; whether that can be done here."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _forget_peak() -> bool:
    """Let the peak of the resident memory start anew; whether the system allows it (proc(5), since Linux 4.0)."""
    try:
        _CLEAR.write_text(_FORGET_PEAK)
    except OSError:
        return False
    return True


def _resident(key: str) -> int:
    """Bytes of the resident memory, now (``VmRSS``) or at the peak (``VmHWM``)."""
    for line in _STATUS.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return 1024 * int(rest.split()[0])
    raise ValueError(f"{_STATUS} has no {key}")
