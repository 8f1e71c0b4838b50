"""Random numbers, one stream a replica."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Noise:
    """Streams of random numbers, one for each replica, whatever batch the replica is in.

    Args:
        seed: shared by the streams; a stream is fixed by the seed, the stage and the number of its replica.
        stage: of a measurement, so that its stretches do not see the same numbers.
    """

    def __init__(self, seed: int, stage: int = 0) -> None:
        self.seed = seed
        self.stage = stage
        self._streams: dict[int, np.random.Generator] = {}

    def __call__(self, replicas: Sequence[int], counts: Sequence[int]) -> Tensor:
        """(sum of counts, 3) standard normal numbers, float64: ``counts`` rows for each replica in turn."""
        return torch.from_numpy(
            np.concatenate([self._stream(r).standard_normal((n, 3)) for r, n in zip(replicas, counts, strict=True)])
        )

    def normal(self, replicas: Sequence[int], n: int) -> Tensor:
        """(n_replicas, n) standard normal numbers, float64."""
        return torch.from_numpy(np.stack([self._stream(replica).standard_normal(n) for replica in replicas]))

    def chi_squared(self, replicas: Sequence[int], dof: Sequence[float]) -> Tensor:
        """(n_replicas,) sums of the squares of ``dof`` standard normal numbers, float64."""
        return torch.tensor(
            [self._stream(replica).chisquare(n) for replica, n in zip(replicas, dof, strict=True)], dtype=torch.float64
        )

    def _stream(self, replica: int) -> np.random.Generator:
        if replica not in self._streams:
            self._streams[replica] = np.random.default_rng(np.random.SeedSequence([self.seed, replica, self.stage]))
        return self._streams[replica]
