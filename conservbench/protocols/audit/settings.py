"""Settings of the audit."""

from __future__ import annotations

from dataclasses import dataclass

from conservbench.ranges import require_at_least


@dataclass(frozen=True)
class Settings:
    """How much is sampled.

    Attributes:
        n_snapshots: thermal snapshots of the system, at most as many as it has.
        n_probes: Rademacher vectors a snapshot, for the estimate of the Jacobian's asymmetry.
        n_exact: snapshots whose whole Jacobian is taken.
        exact_atoms: systems with more atoms get no whole Jacobian.
        bin_width: Å, of the distances of the per-pair asymmetry.
        steps: Å, ascending, of the finite differences that are scanned for a plateau.
        n_scan_probes: vectors of that scan, on the first snapshot.
        n_loops: closed loops, taken round the snapshots in turn.
        n_images: of a loop; even, so that its work can be computed from every second image too.
        n_modes: Fourier modes of a loop.
        amplitude: Å, root mean square displacement of an atom on a loop.
        n_trials: random rotations, translations and permutations a snapshot.
        atoms_per_batch: atoms evaluated at once.
        seed: of everything random; 0 or more.

    Raises:
        ValueError: a value is out of range.
    """

    n_snapshots: int
    n_probes: int
    n_exact: int
    exact_atoms: int
    bin_width: float
    steps: tuple[float, ...]
    n_scan_probes: int
    n_loops: int
    n_images: int
    n_modes: int
    amplitude: float
    n_trials: int
    atoms_per_batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "n_snapshots": 1,
            "n_probes": 2,
            "n_exact": 0,
            "exact_atoms": 0,
            "n_scan_probes": 2,
            "n_loops": 1,
            "n_modes": 1,
            "n_images": 4 * self.n_modes + 4,
            "n_trials": 1,
            "atoms_per_batch": 1,
            "seed": 0,
        }
        for name, limit in least.items():
            require_at_least(limit, self, name)
        if self.n_images % 2:
            raise ValueError(f"n_images is {self.n_images}; expected an even number")
        for name in ("bin_width", "amplitude"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if len(self.steps) < 3 or self.steps[0] <= 0 or sorted(set(self.steps)) != list(self.steps):
            raise ValueError(f"steps is {list(self.steps)}; expected three or more positive numbers, ascending")

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return max(self.n_snapshots, self.n_loops, self.n_probes, self.n_scan_probes)
