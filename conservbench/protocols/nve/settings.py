"""Settings of the NVE protocol."""

from __future__ import annotations

from dataclasses import dataclass

from conservbench.protocols.sampling import samples_of, whole_steps
from conservbench.ranges import require_at_least, require_positive


@dataclass(frozen=True)
class Settings:
    """How long, how often and how finely.

    Attributes:
        replicas: independent trajectories.
        duration: ps of NVE at each time step; a multiple of ``sample_every``.
        time_steps: fs; the first is the main one, the others tell the error of the integrator from that of the forces.
            Under MTS they are inner time steps.
        sample_every: fs between samples; a multiple of each time step (times the stride under MTS).
        equilibration_time: ps of Langevin dynamics before, at the main time step.
        equilibration_tau: fs, relaxation time of momenta in it.
        settling_time: ps of NVE at each time step between equilibration and the record.
        explosion_temperature: K; a replica that is hotter, and hotter than ``explosion_factor`` times the temperature
            of the system, has exploded.
        explosion_factor: see ``explosion_temperature``.
        seed: of momenta and of the Langevin noise; 0 or more.

    Raises:
        ValueError: a value is out of range, or times do not fit each other.
    """

    replicas: int
    duration: float
    time_steps: tuple[float, ...]
    sample_every: float
    equilibration_time: float
    equilibration_tau: float = 50.0
    settling_time: float = 0.0
    explosion_temperature: float = 10000.0
    explosion_factor: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas")
        if not self.time_steps or len(set(self.time_steps)) < len(self.time_steps):
            raise ValueError(f"time_steps is {list(self.time_steps)}; expected one or more, all different")
        require_positive(self, "duration", "sample_every", "equilibration_tau")
        require_positive(self, "explosion_temperature", "explosion_factor", "time_steps")
        require_at_least(0, self, "equilibration_time", "settling_time", "seed")
        for time_step in self.time_steps:
            if whole_steps(self.sample_every, time_step) is None:
                raise ValueError(f"sample_every {self.sample_every} fs is no multiple of the time step {time_step} fs")
        _ = self.n_samples

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return self.replicas

    @property
    def n_samples(self) -> int:
        """Samples of one trajectory after its start; see :func:`conservbench.protocols.sampling.samples_of`."""
        return samples_of(self.duration, self.sample_every)
