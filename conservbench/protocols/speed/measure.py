"""Time the same steps at every size, round by round, and take the peak memory of one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from conservbench.dynamics.integrator import Integrator, integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.base import Model, UnsupportedError, check_support
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report
from conservbench.protocols.speed.clock import ClockedModel, clock_of
from conservbench.protocols.speed.memory import peak_growth, resolution
from conservbench.protocols.speed.settings import Repeat, Settings
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.units import FEMTOSECOND

if TYPE_CHECKING:
    from ase import Atoms

    from conservbench.systems import System

GRADIENT: Final = Scheme("gradient")


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Time steps of every size, of a batch, and of the gradient force where the model has it too, in turn.

    Every round repeats the same steps from the same states: what differs between rounds is the machine alone. Before
    each, one call outside the clock puts the batch in motion, in which a model with a neighbour list searches; in the
    few steps that follow, atoms hardly move far enough for another search: nearly all searches are left out.

    Returns:
        Seconds of one inner step by round: ``step_seconds``, ``force_seconds`` (of it in predictions of the model) and
        ``waited_seconds`` (beside it, while others had the processor; NaN where nothing tells) by size, the number of
        atoms; ``batch_step_seconds`` of the replicas together; ``gradient_step_seconds`` of the system itself under
        gradient forces, for a model that is run by another scheme and has them. ``memory`` (bytes) by trial and size.
        A size that the model cannot be asked for is NaN, and ``left_out`` says why; likewise one at which a step left
        the physical range. ``memory_resolution``: bytes by which all of ``memory`` may be off.

    Raises:
        UnsupportedError: the model lacks a channel or an element.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    n_atoms = len(system.sites)
    with clock_of(model.device) as clock:
        clocked = ClockedModel(model, clock)
        courses, left_out = _courses(clocked, scheme, system, settings)
        left_out |= _warm_up(clocked, courses, first=str(n_atoms))
        taken, memory = _rounds(clocked, courses, settings, report)
    data = _dataset(taken, memory, n_atoms, settings)
    lost = [name for name, times in taken.items() if any(math.isnan(time.step) for time in times)]
    left_out |= dict.fromkeys(lost, (Outcome.EXPLODED, "a step left the physical range"))
    data.attrs = {
        "n_atoms": n_atoms,
        "replicas": settings.replicas,
        "scheme": scheme.kind,
        "stride": scheme.stride,
        "time_step": settings.time_step,
        "device": model.device.type,
        "memory_resolution": resolution(model.device),
        "left_out": json.dumps(left_out),
        "outcome": str(Outcome.EXPLODED if lost else Outcome.COMPLETED),
        "outcome_reason": "; ".join(f"a step of {_spelled(name)} left the physical range" for name in lost),
    }
    return data


_BATCH: Final = "batch"
_GRADIENT: Final = "gradient"

_Ending = tuple[Outcome, str]
"""How what was left out ended, and why."""


@dataclass(frozen=True)
class _Time:
    """Seconds of one inner step: its own, of them in predictions, and beside them waiting for a processor."""

    step: float
    force: float
    waited: float


@dataclass(frozen=True)
class _Course:
    """Steps that are taken again and again from one start."""

    engine: Integrator
    start: State
    dt: float
    n_outer: int

    def timed(self, clocked: ClockedModel) -> _Time:
        """Time them once; NaN if they left the physical range, beyond which nothing is predicted any more."""
        md = self.engine.init(self.start)
        asked, begun = clocked.seconds, clocked.clock()
        for _ in range(self.n_outer):
            md = self.engine.step(md, self.dt)
        ended = clocked.clock()
        seconds = np.array([ended.own - begun.own, clocked.seconds - asked, ended.waited - begun.waited])
        if not bool(torch.isfinite(md.positions).all() & torch.isfinite(md.forces).all()):
            seconds[:] = np.nan
        return _Time(*(seconds / (self.n_outer * self.engine.stride)).tolist())

    def memory(self, device: torch.device) -> float:
        """Peak of one outer step, bytes."""
        md = self.engine.init(self.start)
        return peak_growth(lambda: self.engine.step(md, self.dt), device)


def _courses(
    clocked: ClockedModel, scheme: Scheme, system: System, settings: Settings
) -> tuple[dict[str, _Course], dict[str, _Ending]]:
    """What is timed, by number of atoms, or what else it is; and the sizes that the system cannot have."""
    device, engine = clocked.device, integrator(clocked, scheme)
    single = _started(system, (1, 1, 1), 1, settings, device)
    check_support(clocked, single, scheme.channels)
    dt = settings.time_step * FEMTOSECOND
    courses: dict[str, _Course] = {}
    left_out: dict[str, _Ending] = {}
    for repeat in settings.repeats:
        copies = math.prod(repeat)
        name = str(single.n_atoms * copies)
        try:
            start = _started(system, repeat, 1, settings, device)
        except UnsupportedError as error:
            left_out[name] = Outcome.UNSUPPORTED, str(error)
        else:
            courses[name] = _Course(engine, start, dt, _outer_steps(settings, scheme, copies))
    many = _started(system, (1, 1, 1), settings.replicas, settings, device)
    courses[_BATCH] = _Course(engine, many, dt, _outer_steps(settings, scheme, settings.replicas))
    if scheme.kind != "gradient" and "gradient" in clocked.channels:
        alike = integrator(clocked, GRADIENT)
        courses[_GRADIENT] = _Course(alike, single, dt, _outer_steps(settings, GRADIENT, copies=1))
    return courses, left_out


def _warm_up(clocked: ClockedModel, courses: dict[str, _Course], first: str) -> dict[str, _Ending]:
    """A round that does not count; what the model does not take, but for the system itself, is taken out."""
    left_out: dict[str, _Ending] = {}
    for name, course in list(courses.items()):
        try:
            course.timed(clocked)
        except (UnsupportedError, MemoryError, RuntimeError) as error:
            ending = _ending_of(error)
            if ending is None or name == first:
                raise
            left_out[name] = ending
            del courses[name]
    return left_out


def _rounds(
    clocked: ClockedModel, courses: Mapping[str, _Course], settings: Settings, report: Report
) -> tuple[dict[str, list[_Time]], dict[str, list[float]]]:
    """Times of everything, round by round, then the memory of every size, trial by trial."""
    taken: dict[str, list[_Time]] = {name: [] for name in courses}
    memory: dict[str, list[float]] = {name: [] for name in courses if name not in (_BATCH, _GRADIENT)}
    work = settings.rounds + settings.trials
    for number in range(settings.rounds):
        for name, course in courses.items():
            taken[name].append(course.timed(clocked))
        report((number + 1) / work)
    for number in range(settings.trials):
        for name, peaks in memory.items():
            peaks.append(courses[name].memory(clocked.device))
        report((settings.rounds + number + 1) / work)
    return taken, memory


def _outer_steps(settings: Settings, scheme: Scheme, copies: int) -> int:
    """Outer steps for one time: about as much work whatever the number of copies of the system."""
    return math.ceil(settings.steps / copies / scheme.stride)


def _started(system: System, repeat: Repeat, replicas: int, settings: Settings, device: torch.device) -> State:
    """Snapshots of the system, repeated, with thermal momenta.

    Raises:
        UnsupportedError: the system is not periodic where it would be repeated.
    """
    frames = [_repeated(system.snapshots[k % len(system.snapshots)], repeat) for k in range(replicas)]
    start = from_atoms(frames, device=device)
    return start.replace(momenta=draw_momenta(start, system.temperature, Noise(settings.seed)))


def _repeated(frame: Atoms, repeat: Repeat) -> Atoms:
    if any(times > 1 and not periodic for times, periodic in zip(repeat, frame.pbc, strict=True)):
        raise UnsupportedError("a system is repeated in directions in which it is periodic only")
    return frame.repeat(repeat)


def _ending_of(error: Exception) -> _Ending | None:
    """What a size may end with while others go on; None for an error of the model."""
    reason = " ".join(str(error).split())
    if isinstance(error, UnsupportedError):
        return Outcome.UNSUPPORTED, reason
    # torch reports a full memory of the CPU as a plain RuntimeError of its allocator
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in reason:
        return Outcome.OUT_OF_MEMORY, reason
    return None


def _spelled(name: str) -> str:
    return f"{name} atoms" if name.isdigit() else f"the {name}"


def _dataset(
    taken: dict[str, list[_Time]], memory: dict[str, list[float]], n_atoms: int, settings: Settings
) -> xr.Dataset:
    sizes = [n_atoms * math.prod(repeat) for repeat in settings.repeats]
    nothing = _Time(math.nan, math.nan, math.nan)

    def by_size(field: str) -> NDArray[np.float64]:
        columns = [taken.get(str(size), [nothing] * settings.rounds) for size in sizes]
        return np.array([[getattr(time, field) for time in column] for column in columns]).T

    def alone(name: str, long_name: str) -> dict[str, tuple[str, Sequence[float], dict[str, str]]]:
        if name not in taken:
            return {}
        return {f"{name}_step_seconds": ("round", [time.step for time in taken[name]], _about("s", long_name))}

    peaks = np.array([memory.get(str(size), [math.nan] * settings.trials) for size in sizes]).T
    dims = ("round", "size")
    return xr.Dataset(
        {
            "step_seconds": (dims, by_size("step"), _about("s", "time of an inner step")),
            "force_seconds": (dims, by_size("force"), _about("s", "of it in predictions of the model")),
            "waited_seconds": (dims, by_size("waited"), _about("s", "time beside it while others had the processor")),
            "memory": (("trial", "size"), peaks, _about("B", "growth of memory at the peak of an outer step")),
            **alone(_BATCH, "time of an inner step of the batch"),
            **alone(_GRADIENT, "time of a step of the system itself with gradient forces"),
        },
        coords={
            "round": ("round", np.arange(settings.rounds), _about("1", "round of timing")),
            "size": ("size", sizes, _about("1", "number of atoms")),
            "trial": ("trial", np.arange(settings.trials), _about("1", "measurement of memory")),
        },
    )


def _about(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}
