"""Energy and forces of a kernel model without a graph, and the same as one recorded list of operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.fx import Node

from conservbench.models.kernel.expansion import Expansion
from conservbench.models.kernel.jets import Features
from conservbench.state import State

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Energies (n_systems,) in eV and forces (n_atoms, 3) in eV/Å of positions and cell."""


@dataclass(frozen=True)
class Contracted:
    """Energies and forces of a batch as a function of positions (n_atoms, 3) and cell (n_systems, 3, 3).

    The slope of the energy by the features is contracted; the reverse pass is through the descriptor alone.

    Attributes:
        features: of the batch.
        expansion: the energy of features.
    """

    features: Features
    expansion: Expansion

    def __call__(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate."""
        leaf = positions.detach().requires_grad_(True)
        with torch.enable_grad():
            rows = self.features(leaf, cell)
        with torch.no_grad():
            energies, slopes = self.expansion.with_slopes(rows.detach(), self.features.species)
            if self.features.descriptor.is_local:
                energies = self.features.state.sum(energies)
        return energies, torch.autograd.grad(rows, leaf, slopes)[0].neg()


OFTEN: Final = 1000
"""Calls of one shape from which on they are recorded: by then they have cost what recording costs."""


class Recorder:
    """Calls functions of batches of one molecule, and their recorded operations once they have been called often.

    Python and automatic differentiation cost more than the arithmetic of a small molecule. Recorded once, forward and
    reverse pass are one list of operations that needs neither. What cannot be recorded, such as a descriptor that
    branches on a value, or what does not give the same numbers again, remains as it is.

    Args:
        function_of: makes the function of batches like a state, which depends on the number of systems alone.
    """

    def __init__(self, function_of: Callable[[State], Function]) -> None:
        self._function_of = function_of
        self._calls: dict[int, int] = {}
        self._recorded: dict[int, Function] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, goes on from: recordings are made anew."""
        return {**vars(self), "_calls": {}, "_recorded": {}}

    def __call__(self, state: State) -> tuple[Tensor, Tensor]:
        """Energies (n_systems,) in eV and forces (n_atoms, 3) in eV/Å."""
        n_systems, positions, cell = state.n_systems, state.positions.detach(), state.cell.detach()
        if n_systems in self._recorded:
            return self._recorded[n_systems](positions, cell)
        function = self._function_of(state)
        said = function(positions, cell)
        self._calls[n_systems] = self._calls.get(n_systems, 0) + 1
        if self._calls[n_systems] == OFTEN:
            recorded = record(function, positions, cell)
            if recorded is not None and all(map(_agree, recorded(positions, cell), said)):
                self._recorded[n_systems] = recorded
        return said


def _agree(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def _has_shapes_of_values(node: Node) -> bool:
    """Whether the shape of what an operation gives depends on values, as where a mask picks some."""
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.dynamic_output_shape not in node.target.tags:  # noqa: SLF001
        return False
    if node.target.overloadpacket is not torch.ops.aten.index:
        return True
    indices = cast("Sequence[Node | None]", node.args[1])
    picked = [each.meta["val"] for each in indices if each is not None]
    return any(each.dtype in (torch.bool, torch.uint8) for each in picked)


def record(function: Function, positions: Tensor, cell: Tensor) -> Function | None:
    """The operations of a function at some arguments; None where they depend on the values."""
    from torch.fx.experimental.proxy_tensor import make_fx

    # deprecated, with no successor yet that runs such a list without Python and without a compiler
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            graph = make_fx(function)(positions, cell)
            if any(map(_has_shapes_of_values, graph.graph.nodes)):
                return None
            traced = torch.jit.trace(graph, (positions, cell), check_trace=False)
        except RuntimeError:
            return None
        # the method itself: a module looks for hooks at each call
        recorded: Function = torch.jit.freeze(traced.eval()).forward
    return recorded
