"""Settings of the protocol of multiple time steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conservbench.protocols.sampling import samples_of, whole_steps
from conservbench.ranges import require_at_least, require_element, require_positive

Bath = Literal["langevin", "svr"]


@dataclass(frozen=True)
class Settings:
    """How far, how long, and what counts as unchanged.

    Attributes:
        replicas: independent trajectories.
        strides: inner steps to one outer step, ascending from 1, which is velocity Verlet with the gradient force and
            what the others are compared with.
        time_steps: fs, inner time steps; the first is the main one.
        duration: ps of NVE at each stride and time step; a multiple of ``sample_every``.
        sample_every: fs between records; a multiple of every outer step.
        look_every: fs between the samples of the total energy, recorded as its mean since the record before; an
            outer step where that is longer. Short beside a vibration, so that what an integrator does to the energy
            within a period averages out of the drift.
        equilibration_time: ps of Langevin dynamics before, under the gradient force, at the main time step.
        equilibration_tau: fs, relaxation time of momenta in it.
        settling_time: ps of NVE at each stride between equilibration and the record.
        element: symbol of the element whose atoms g(r) is of; all where it is empty. Of a liquid of molecules one that
            each has once: among all atoms, bonds would outweigh the structure of the liquid.
        rdf_range: Å, to which g(r) is recorded.
        rdf_bin: Å, width of its bins.
        baths: thermostats of the runs at constant temperature, at the stride of the model's card.
        bath_time: ps of each, after ``bath_settling_time``.
        bath_settling_time: ps of it that are not recorded.
        bath_tau: fs, relaxation time of the baths.
        rounds: times that the cost of every stride is taken.
        drift_limit: meV/atom/ps, how much the total energy may drift at a stride that is inside the gate.
        temperature_limit: of the target temperature, how much the mean temperature may differ from that at stride 1.
        rdf_limit: how far g(r) may be from that at stride 1: sum (g - g_1)^2 / sum g_1^2.
        explosion_temperature: K; a replica that is hotter, and hotter than ``explosion_factor`` times the temperature
            of the system, has exploded.
        explosion_factor: see ``explosion_temperature``.
        seed: of momenta and of the noise of the baths; 0 or more.

    Raises:
        ValueError: a value is out of range, or times do not fit each other.
    """

    replicas: int
    strides: tuple[int, ...]
    time_steps: tuple[float, ...]
    duration: float
    sample_every: float
    equilibration_time: float
    bath_time: float
    rounds: int
    drift_limit: float
    temperature_limit: float
    rdf_limit: float
    look_every: float = 4.0
    baths: tuple[Bath, ...] = ("svr", "langevin")
    bath_tau: float = 100.0
    bath_settling_time: float = 0.0
    equilibration_tau: float = 50.0
    settling_time: float = 0.0
    element: str = ""
    rdf_range: float = 6.0
    rdf_bin: float = 0.1
    explosion_temperature: float = 10000.0
    explosion_factor: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas", "rounds")
        if self.strides[:1] != (1,) or list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides is {list(self.strides)}; expected 1 and what ascends from it")
        if not self.time_steps or len(set(self.time_steps)) < len(self.time_steps):
            raise ValueError(f"time_steps is {list(self.time_steps)}; expected one or more, all different")
        if len(set(self.baths)) < len(self.baths):
            raise ValueError(f"baths is {list(self.baths)}; expected each once")
        require_positive(self, "duration", "sample_every", "look_every", "bath_time", "bath_tau", "equilibration_tau")
        require_positive(self, "rdf_range", "rdf_bin", "drift_limit", "temperature_limit", "rdf_limit")
        require_positive(self, "explosion_temperature", "explosion_factor", "time_steps")
        require_at_least(0, self, "equilibration_time", "settling_time", "bath_settling_time", "seed")
        require_element(self, "element")
        for time_step in self.time_steps:
            for stride in self.strides:
                if whole_steps(self.sample_every, stride * time_step) is None:
                    raise ValueError(
                        f"sample_every {self.sample_every} fs is no multiple of {stride} steps of {time_step} fs"
                    )
        _ = self.n_samples
        if self.n_bins < 1:
            raise ValueError(f"rdf_range {self.rdf_range} Å is below rdf_bin {self.rdf_bin} Å")

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return max(self.replicas, self.rounds)

    @property
    def n_samples(self) -> int:
        """Records of one trajectory after its start; see :func:`conservbench.protocols.sampling.samples_of`."""
        return samples_of(self.duration, self.sample_every)

    def look(self, outer: float) -> int:
        """Outer steps (of ``outer`` fs) from one sample to the next: near ``look_every``, and even in a block."""
        block = max(1, round(self.sample_every / outer))
        most = max(1.0, self.look_every / outer + 1e-9)
        return max(steps for steps in range(1, block + 1) if steps <= most and block % steps == 0)

    @property
    def n_bins(self) -> int:
        """Bins of g(r)."""
        return int(self.rdf_range / self.rdf_bin + 1e-9)
