"""Settings of the thermostat protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from conservbench.protocols.sampling import TOLERANCE, samples_of, whole_steps
from conservbench.ranges import require_at_least, require_element, require_positive


@dataclass(frozen=True)
class Bath:
    """One heat bath.

    Attributes:
        kind: ``langevin``, ``svr`` (stochastic velocity rescaling) or ``nose-hoover`` (a chain).
        tau: fs; relaxation time of momenta, of the kinetic energy, or time scale of the chain.

    Raises:
        ValueError: tau is not positive and finite.
    """

    kind: Literal["langevin", "svr", "nose-hoover"]
    tau: float

    def __post_init__(self) -> None:
        require_positive(self, "tau")

    @property
    def name(self) -> str:
        """Such as ``langevin_100``: the end of the key of each of its metrics."""
        return f"{self.kind.replace('-', '_')}_{self.tau:g}"


@dataclass(frozen=True)
class Settings:
    """Which baths, how long and how often.

    Attributes:
        baths: heat baths, each from the same starts.
        replicas: independent trajectories under each bath.
        duration: ps recorded under each bath; a multiple of ``sample_every``.
        time_step: fs; under MTS the inner one.
        sample_every: fs between samples; a multiple of the time step (times the stride under MTS).
        equilibration_time: ps of Langevin dynamics before all of them.
        equilibration_tau: fs, relaxation time of momenta in it.
        settling_time: ps under each bath before the record.
        longest_lag: ps, of velocity autocorrelation and mean squared displacement; shorter than ``duration``.
        element: symbol of the element whose atoms g(r) and the displacement are of; all where it is empty. Of a liquid
            of molecules one that each has once: among all atoms, bonds would outweigh the structure of the liquid.
        diffusive_after: ps; motion before that is no diffusion, and a fit that ends earlier gives none.
        rdf_range: Å, the longest distance of g(r).
        rdf_width: Å, width of its bins.
        chain_length: thermostats in a Nosé-Hoover chain.
        ensemble_baths: names of the baths under which potential energies are also recorded at a second temperature.
        second_temperature: that temperature over the one of the system, from the same starts; 0 leaves it out.
        explosion_temperature: K; a replica that is hotter, and hotter than ``explosion_factor`` times the temperature
            of the system, has exploded.
        explosion_factor: see ``explosion_temperature``.
        seed: of momenta and of the noise of the baths; 0 or more.

    Raises:
        ValueError: a value is out of range, or times do not fit each other.
    """

    baths: tuple[Bath, ...]
    replicas: int
    duration: float
    time_step: float
    sample_every: float
    equilibration_time: float
    equilibration_tau: float = 50.0
    settling_time: float = 0.0
    longest_lag: float = 0.25
    element: str = ""
    diffusive_after: float = 0.0
    rdf_range: float = 6.0
    rdf_width: float = 0.05
    chain_length: int = 3
    ensemble_baths: tuple[str, ...] = ()
    second_temperature: float = 0.0
    explosion_temperature: float = 10000.0
    explosion_factor: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        names = [bath.name for bath in self.baths]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"baths are {names}; expected one or more, all different")
        require_at_least(1, self, "replicas", "chain_length")
        require_positive(self, "duration", "time_step", "sample_every", "equilibration_tau", "longest_lag")
        require_positive(self, "rdf_range", "rdf_width", "explosion_temperature", "explosion_factor")
        require_at_least(
            0, self, "equilibration_time", "settling_time", "second_temperature", "seed", "diffusive_after"
        )
        require_element(self, "element")
        if self.second_temperature == 1:
            raise ValueError("second_temperature is 1; expected another temperature than the first")
        if len(set(self.ensemble_baths)) < len(self.ensemble_baths) or not set(self.ensemble_baths) <= set(names):
            raise ValueError(f"ensemble_baths are {list(self.ensemble_baths)}; expected some of {names}")
        if whole_steps(self.sample_every, self.time_step) is None:
            raise ValueError(f"sample_every {self.sample_every} fs is no multiple of the time step {self.time_step} fs")
        _ = self.n_samples
        if not 2 <= self.n_lags <= self.n_samples + 1:
            raise ValueError(f"longest_lag is {self.longest_lag}; expected sample_every or more, the duration or less")
        if self.n_bins < 1:
            raise ValueError(f"rdf_width {self.rdf_width} Å is above rdf_range {self.rdf_range} Å")

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
        """Lags of the correlation functions, that of zero included."""
        return math.floor(1000.0 * self.longest_lag / self.sample_every + TOLERANCE) + 1

    @property
    def n_bins(self) -> int:
        """Bins of g(r)."""
        return math.floor(self.rdf_range / self.rdf_width + TOLERANCE)
