"""Settings of the finetune protocol."""

from __future__ import annotations

from dataclasses import dataclass

from conservbench.protocols.fidelity.settings import Sampling


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling):
    """Where g(r) is compared with that of the reference, and how it is sampled.

    Attributes:
        reference: name of the reference.
        conditions: names of the systems whose g(r) the reference has: density, temperature and size.
        tuned_at: the one of them whose g(r) models are tuned to; the others are held out.

    Raises:
        ValueError: a value is out of range, times do not fit each other, or conditions repeat or lack ``tuned_at``.
    """

    reference: str
    conditions: tuple[str, ...]
    tuned_at: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.conditions)) < len(self.conditions) or self.tuned_at not in self.conditions:
            raise ValueError(f"conditions are {list(self.conditions)}; expected {self.tuned_at} and others, once each")
