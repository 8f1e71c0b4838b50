"""Settings of the fidelity protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conservbench.protocols.sampling import TOLERANCE, samples_of, whole_steps
from conservbench.ranges import require_at_least, require_positive
from conservbench.units import MILLI


@dataclass(frozen=True)
class Sampling:
    """How a system at its temperature is sampled.

    Attributes:
        replicas: independent trajectories.
        duration: ps recorded of each; a multiple of ``sample_every``.
        time_step: fs; under MTS the inner one.
        sample_every: fs between samples; a multiple of the time step (times the stride under MTS).
        equilibration_time: ps before the record: the snapshots are those of another potential.
        tau: fs, relaxation time of the kinetic energy under stochastic velocity rescaling.
        longest_lag: ps, of the mean squared displacement; shorter than ``duration``.
        explosion_temperature: K; a replica that is hotter, and hotter than ``explosion_factor`` times the temperature
            of the system, has exploded.
        explosion_factor: see ``explosion_temperature``.
        seed: of momenta and of the noise of the bath; 0 or more.

    Raises:
        ValueError: a value is out of range, or times do not fit each other.
    """

    replicas: int
    duration: float
    time_step: float
    sample_every: float
    equilibration_time: float
    tau: float = 10.0
    longest_lag: float = 0.25
    explosion_temperature: float = 10000.0
    explosion_factor: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas")
        require_positive(self, "duration", "time_step", "sample_every", "tau", "longest_lag")
        require_positive(self, "explosion_temperature", "explosion_factor")
        require_at_least(0, self, "equilibration_time", "seed")
        if whole_steps(self.sample_every, self.time_step) is None:
            raise ValueError(f"sample_every {self.sample_every} fs is no multiple of the time step {self.time_step} fs")
        _ = self.n_samples
        if not 2 <= self.n_lags <= self.n_samples + 1:
            raise ValueError(f"longest_lag is {self.longest_lag}; expected sample_every or more, the duration or less")

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return self.replicas

    @property
    def n_samples(self) -> int:
        """Samples of one trajectory after its start; see :func:`conservbench.protocols.sampling.samples_of`."""
        return samples_of(self.duration, self.sample_every)

    @property
    def n_lags(self) -> int:
        """Lags of the mean squared displacement, that of zero included."""
        return math.floor(MILLI * self.longest_lag / self.sample_every + TOLERANCE) + 1


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling):
    """What properties are compared with, and how those of systems in motion are sampled.

    Attributes:
        reference: name of the reference.
    """

    reference: str
