"""The permutations of equal atoms that a molecule makes itself: rotations of a methyl group, reflections.

Pairs of training frames are matched: the permutation of one that brings its matrix of distances closest to that of the
other is a step the molecule has made between them. What the matches generate is a group, over which the kernel is
averaged. The idea is that of Chmiela, Sauceda, Mueller and Tkatchenko, Nat. Commun. 9, 3887 (2018); the matching is
scipy's for the quadratic assignment problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

Permutation = tuple[int, ...]

_CLOSER: Final = 0.8
"""A match counts where it brings two matrices this much closer, and a step that was made by chance does not."""

_SHARE: Final = 0.01
"""Share of the pairs that must show a permutation."""

_MOST: Final = 512
"""Elements of a group that a kernel can be averaged over."""


def find_permutations(
    positions: NDArray[np.float64], numbers: NDArray[np.int64], *, pairs: int = 300, seed: int = 0
) -> tuple[Permutation, ...]:
    """The group of permutations that a molecule shows, the identity first.

    Args:
        positions: (n_frames, n_atoms, 3), Å.
        numbers: (n_atoms,), atomic numbers.
        pairs: of frames that are matched.
        seed: of the choice of pairs.

    Raises:
        ValueError: the matches generate more permutations than a kernel can be averaged over.
    """
    identity = tuple(range(len(numbers)))
    if len(positions) < 2:
        return (identity,)
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    rng = np.random.default_rng(seed)
    seen: Counter[Permutation] = Counter()
    for _ in range(pairs):
        a, b = rng.choice(len(positions), 2, replace=False)
        seen[match(distances[a], distances[b], numbers)] += 1
    steps = [found for found, count in seen.items() if count >= max(2, _SHARE * pairs) and found != identity]
    return closure(steps, len(numbers))


def match(one: NDArray[np.float64], other: NDArray[np.float64], numbers: NDArray[np.int64]) -> Permutation:
    """The permutation p for which ``other[p][:, p]`` is closest to ``one``; the identity where none is clearly closer.

    Args:
        one: (n_atoms, n_atoms) distances, Å.
        other: likewise.
        numbers: (n_atoms,), atomic numbers, which p keeps.
    """
    from scipy.optimize import quadratic_assignment

    identity = np.arange(len(numbers))
    # atoms of different elements are never exchanged: that would cost more than all distances together
    kinds = np.diag(numbers * 10.0 * max(one.max(), other.max()))
    best, least = identity, _CLOSER * np.linalg.norm(one - other)
    start_options: dict[str, Any] = {"maximize": True, "rng": np.random.default_rng(0)}
    guess = quadratic_assignment(one + kinds, other + kinds, method="faq", options=start_options)["col_ind"]
    for start in (guess, identity):
        options: dict[str, Any] = {"maximize": True, "partial_guess": np.stack((identity, start), 1)}
        # the order of its trials is random in the library
        options["rng"] = np.random.default_rng(0)
        found = quadratic_assignment(one + kinds, other + kinds, method="2opt", options=options)["col_ind"]
        apart = np.linalg.norm(one - other[np.ix_(found, found)])
        if apart < least and (numbers[found] == numbers).all():
            best, least = found, apart
    return cast("Permutation", tuple(int(i) for i in best))


def closure(steps: Iterable[Permutation], n_atoms: int) -> tuple[Permutation, ...]:
    """The group that permutations generate, the identity first, the rest in order.

    Raises:
        ValueError: it is too large for a kernel to be averaged over.
    """
    steps = list(steps)
    identity = tuple(range(n_atoms))
    group, fresh = {identity}, [identity]
    while fresh:
        made = {tuple(known[i] for i in step) for known in fresh for step in steps} - group
        group |= made
        fresh = list(made)
        if len(group) > _MOST:
            raise ValueError(
                f"permutations: those found generate more than {_MOST}: frames are too far apart to be matched; set "
                'permutations = "none"'
            )
    return (identity, *sorted(group - {identity}))
