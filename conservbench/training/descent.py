"""Go down the sum of several terms, resumably, and keep what is sound.

The optimiser sees one gradient whatever the terms are made of, each by the route that suits it (see ``route``). A step
at whose parameters a term breaks (an explosion, a value that is not finite, an ensemble that cannot be sampled) is
rejected: it is recorded, the last parameters that were sound are taken up again, and the step size is halved.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from conservbench.models.base import UnsupportedError
from conservbench.outcome import Outcome
from conservbench.result import write_bytes
from conservbench.training.relative_adam import RelativeAdam, norm_of, scale_of
from conservbench.training.route import Sensitivity
from conservbench.training.terms import Term
from conservbench.training.tuning_recipe import TuningRecipe

Progress = Callable[[int, int, str], None]
"""Called after each step with the steps done, the steps in all and a line about the last one."""


@dataclass(frozen=True)
class Descent:
    """Where it led.

    Attributes:
        parameters: what is kept: the moving average of the parameters that were sound; the start if none were.
        outcome: whether all steps were taken.
        reason: why not, in one line.
        history: a row a step.
    """

    parameters: Mapping[str, Tensor]
    outcome: Outcome
    reason: str
    history: tuple[Mapping[str, Any], ...]

    @property
    def accepted(self) -> int:
        """Steps whose terms were all sound."""
        return sum(row["accepted"] for row in self.history)

    def total(self, name: str) -> float:
        """Sum of a number over all steps: ``evaluations`` or ``seconds``."""
        return float(sum(row[name] for row in self.history))

    def dataset(self) -> xr.Dataset:
        """The history: dimension step; losses and gradient norms by term, what each term recorded, and cost."""
        rows = self.history
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = {"outcome": "how the step ended", "reason": "why it was rejected"}
        units = {"seconds": "s", "evaluations": "1", "learning_rate": "1", "accepted": "1"}
        said = {
            "seconds": "time of the step",
            "evaluations": "energies or forces of 64 atoms evaluated in the step",
            "learning_rate": "largest relative change of a parameter",
            "accepted": "whether the terms were sound at the parameters of the step",
        }
        variables = {
            name: (
                "step",
                np.array([str(row.get(name, "")) for row in rows])
                if name in text
                else np.array([float(row.get(name, math.nan)) for row in rows]),
                {"units": units.get(name, "1"), "long_name": said.get(name, text.get(name, name.replace("_", " ")))},
            )
            for name in names
        }
        attributes = {"outcome": self.outcome.value, "outcome_reason": self.reason}
        return xr.Dataset(variables, coords={"step": np.arange(1, len(rows) + 1)}, attrs=attributes)


@dataclass
class _State:
    """Where a descent is: everything that goes on from one step to the next but the memory of the terms."""

    current: dict[str, Tensor]
    sound: dict[str, Tensor] | None = None
    average: dict[str, Tensor] | None = None
    averaged: int = 0
    slower: float = 1.0
    rejected: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def descend(
    terms: Sequence[Term],
    start: Mapping[str, Tensor],
    recipe: TuningRecipe,
    identity: str,
    state_file: Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Descent:
    """Go down the sum of the terms, going on from the step that ``state_file`` holds.

    A resumed descent equals an uninterrupted one bit for bit on one machine with the same threads.

    Args:
        terms: of the loss, each with a name of its own.
        start: parameters by name, float64.
        recipe: steps, learning rate, clipping, patience and averaging.
        identity: of what is tuned, and how: a state of another is refused.
        state_file: where to go on, written after each step.
        fresh: start anew, whatever the file holds.
        progress: told of each step.

    Raises:
        UnsupportedError: a term does not apply to the model.
        ValueError: ``state_file`` is that of another descent, or none.
    """
    scales = {name: scale_of(value) for name, value in start.items()}
    state = _State(current={name: value.detach().clone() for name, value in start.items()})
    optimizer = RelativeAdam(scales)
    if state_file.exists() and not fresh:
        saved = _read(state_file, next(iter(start.values())).device, identity)
        state = _State(**saved["state"])
        state.sound = state.current if state.rejected and state.sound is not None else state.sound
        optimizer.restore(saved["optimizer"])
        for term in terms:
            term.remember(saved["terms"][term.name])

    while len(state.history) < recipe.steps and state.rejected < recipe.patience:
        step = len(state.history)
        began = time.monotonic()
        memories = [term.memory() for term in terms]
        found = _ask(terms, state.current, step)
        broken = next(((name, each) for name, each in found.items() if each.outcome is not Outcome.COMPLETED), None)
        row = _row(found, scales, time.monotonic() - began)
        if broken is None:
            # parameters that were taken up again are in the average already
            if state.sound is not state.current:
                state.average = _averaged(state.average, state.current, recipe.ema, state.averaged)
                state.averaged += 1
            state.sound = state.current
            rate = recipe.learning_rate * state.slower * _schedule(step, recipe.steps)
            state.current = optimizer.step(state.current, _total(found, row, state.history, recipe.clip), rate)
            state.rejected = 0
        else:
            name, each = broken
            row |= {"accepted": False, "outcome": each.outcome.value, "reason": f"{name}: {each.reason}"}
            rate = 0.0
            state.current = state.current if state.sound is None else state.sound
            for term, memory in zip(terms, memories, strict=True):
                term.remember(memory)
            state.slower *= 0.5
            state.rejected += 1
            optimizer.forget()
        state.history.append({**row, "learning_rate": rate})
        _write(state_file, identity, state, optimizer, terms)
        if progress is not None:
            progress(step + 1, recipe.steps, _line(state.history[-1], terms))
    kept = dict(start) if state.average is None else state.average
    outcome, reason = _ending(state, recipe)
    return Descent(kept, outcome, reason, tuple(state.history))


def _ending(state: _State, recipe: TuningRecipe) -> tuple[Outcome, str]:
    if state.rejected < recipe.patience:
        return Outcome.COMPLETED, ""
    last = state.history[-1]
    return Outcome(last["outcome"]), f"stopped after {state.rejected} rejected steps in a row: {last['reason']}"


def _ask(terms: Sequence[Term], parameters: Mapping[str, Tensor], step: int) -> dict[str, Sensitivity]:
    """What each term says, up to the first that breaks."""
    found: dict[str, Sensitivity] = {}
    for term in terms:
        each = term(parameters, step)
        if each.outcome is Outcome.COMPLETED and not _is_finite(each):
            each = Sensitivity(Outcome.FAILED, "its loss or its gradient is not finite", record=each.record)
        found[term.name] = each
        if each.outcome is Outcome.UNSUPPORTED:
            raise UnsupportedError(f"{term.name}: {each.reason}")
        if each.outcome is not Outcome.COMPLETED:
            break
    return found


def _is_finite(found: Sensitivity) -> bool:
    return math.isfinite(found.loss) and all(bool(slope.isfinite().all()) for slope in found.gradient.values())


def _row(found: Mapping[str, Sensitivity], scales: Mapping[str, float], seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"accepted": True, "outcome": Outcome.COMPLETED.value, "reason": "", "seconds": seconds}
    row["evaluations"] = sum(each.record.get("evaluations", 0.0) for each in found.values())
    for name, each in found.items():
        if each.gradient:
            row |= {f"{name}_loss": each.loss, f"{name}_gradient": norm_of(each.gradient, scales)}
        row |= {f"{name}_{key}": float(value) for key, value in each.record.items() if key != "evaluations"}
    return row


def _total(
    found: Mapping[str, Sensitivity], row: dict[str, Any], history: Sequence[Mapping[str, Any]], clip: float
) -> dict[str, Tensor]:
    """The sum of the gradients, each no longer than ``clip`` times the median of those of its term so far."""
    total: dict[str, Tensor] = {}
    for term, each in found.items():
        key = f"{term}_gradient"
        usual = float(np.median([*(past[key] for past in history if key in past), row[key]]))
        factor = min(1.0, clip * usual / row[key]) if row[key] > 0 else 1.0
        for name, slope in each.gradient.items():
            total[name] = total[name] + factor * slope if name in total else factor * slope
    return total


def _averaged(
    average: Mapping[str, Tensor] | None, current: Mapping[str, Tensor], decay: float, before: int
) -> dict[str, Tensor]:
    """Moving average of the sound parameters; that of the first steps is their plain mean."""
    if average is None:
        return {name: value.clone() for name, value in current.items()}
    share = max(1.0 - decay, 1.0 / (before + 1))
    return {name: average[name] + share * (value - average[name]) for name, value in current.items()}


def _schedule(step: int, n_steps: int) -> float:
    """Linear warm-up over a tenth of the steps, then half a cosine down to a tenth."""
    warm_up = max(1, n_steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    phase = (step - warm_up) / max(1, n_steps - warm_up)
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * phase))


def _line(row: Mapping[str, Any], terms: Sequence[Term]) -> str:
    if not row["accepted"]:
        return f"rejected: {row['reason']}"
    return "  ".join(f"{term.name} {row[f'{term.name}_loss']:.4g}" for term in terms)


def _write(path: Path, identity: str, state: _State, optimizer: RelativeAdam, terms: Sequence[Term]) -> None:
    saved = {
        "identity": identity,
        "state": vars(state),
        "optimizer": optimizer.memory(),
        "terms": {term.name: term.memory() for term in terms},
    }
    # made in memory: on a full disk torch says something else, and leaves a part of a file
    content = io.BytesIO()
    torch.save(saved, content)
    write_bytes(content.getvalue(), path)


def _read(path: Path, device: torch.device, identity: str) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"{path}: not the state of a tuning; --fresh starts anew") from error
    if saved.get("identity") != identity:
        raise ValueError(f"{path}: belongs to another model, target, recipe or number of steps; --fresh starts anew")
    return saved
