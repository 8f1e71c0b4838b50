"""What fixes a descriptor potential and is no weight."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from typing import Literal

Readout = Literal["none", "linear", "quadratic", "network"]


@dataclass(frozen=True)
class Basis:
    """Size of the descriptor.

    A product of radial functions n_i and spherical harmonics l_i has the degree sum(n_i + l_i), n and l from zero.

    Attributes:
        cutoff: Å.
        length: Å, decay length of the radial functions.
        degrees: highest degree of the invariant products of one, two, ... neighbours; none of an order by -1.
        vector_degrees: likewise of the vector products, for direct forces.

    Raises:
        ValueError: a value is out of range.
    """

    cutoff: float
    length: float
    degrees: tuple[int, ...]
    vector_degrees: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cutoff", "length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not 1 <= len(self.degrees) <= 4:
            raise ValueError(f"degrees is {list(self.degrees)}; expected one for each of 1 to 4 orders")
        if len(self.vector_degrees) > 3:
            raise ValueError(f"vector_degrees is {list(self.vector_degrees)}; expected one for each of up to 3 orders")
        if min(*self.degrees, *self.vector_degrees, 0) < -1:
            raise ValueError("degrees and vector_degrees must not be below -1")
        if max(self.degrees) < 0:
            raise ValueError(f"degrees is {list(self.degrees)}: no invariant is left; expected 0 or more for an order")


@dataclass(frozen=True)
class Head:
    """What the descriptor is read out to.

    Attributes:
        energy: read-out of the atomic energies.
        direct: read-out of direct forces: linear in the vectors; quadratic, in vectors times invariants; a network of
            the invariants that gives the weights of the vectors.
        hidden: widths of the hidden layers of networks.
        core: Å, where the screened repulsion of nuclei begins, going inwards; none by 0.

    Raises:
        ValueError: a value is out of range, a network has no hidden layer, or read-outs do not go together.
    """

    energy: Literal["linear", "quadratic", "network"]
    direct: Readout = "none"
    hidden: tuple[int, ...] = ()
    core: float = 0.0

    def __post_init__(self) -> None:
        if "network" in (self.energy, self.direct) and (not self.hidden or min(self.hidden) < 1):
            raise ValueError(f"hidden is {list(self.hidden)}; expected positive widths for a network")
        if (self.energy, self.direct) == ("quadratic", "network"):
            raise ValueError("a network of direct forces goes with a linear energy or a network")
        if self.core < 0:
            raise ValueError(f"core is {self.core}; expected 0 or more")


def check_together(basis: Basis, head: Head) -> None:
    """Whether a head can be read out of a basis.

    Raises:
        ValueError: direct forces are wanted of no vectors, or the core reaches beyond the neighbours that are found.
    """
    if (head.direct != "none") != bool(basis.vector_degrees):
        raise ValueError("direct forces and vector_degrees belong together: give both or none")
    if head.core > basis.cutoff:
        raise ValueError(f"core is {head.core} Å; expected no more than the cutoff of {basis.cutoff} Å")


@dataclass(frozen=True)
class Settings:
    """Everything that fixes a potential and is no weight.

    Attributes:
        elements: atomic numbers it knows, ascending.
        atomic_energies: eV, one an element.
        basis: size of the descriptor.
        head: what it is read out to.

    Raises:
        ValueError: elements are not ascending or lack an energy, or basis and head do not go together.
    """

    elements: tuple[int, ...]
    atomic_energies: tuple[float, ...]
    basis: Basis
    head: Head

    def __post_init__(self) -> None:
        if not self.elements or list(self.elements) != sorted(set(self.elements)) or self.elements[0] < 1:
            raise ValueError(f"elements is {list(self.elements)}; expected atomic numbers, ascending")
        if len(self.atomic_energies) != len(self.elements):
            raise ValueError(f"{len(self.elements)} elements have {len(self.atomic_energies)} atomic energies")
        check_together(self.basis, self.head)

    @classmethod
    def from_toml(cls, text: str) -> Settings:
        """Read what :meth:`to_toml` wrote.

        Raises:
            CardError: a key is missing or not known, or a value is out of range.
        """
        from conservbench.cards import build

        return build(cls, tomllib.loads(text), "settings of a descriptor potential")

    def to_toml(self) -> str:
        """TOML text of the settings."""
        import tomli_w

        return tomli_w.dumps(asdict(self))
