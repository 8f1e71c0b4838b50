"""Does a model keep to the interface? Checks that a third party runs on its own model, in two lines.

    from conservbench.testing import check_model

    def test_my_model():
        check_model("cards/my-model.toml")

or, one test a check,

    @pytest.mark.parametrize("check", conformance_checks(), ids=str)
    def test_my_model(check):
        check("cards/my-model.toml")

The checks ask for what simulations rely on: arrays of the right shape and type, channels that are there and mean what
they claim, and answers that depend on the state alone. They ask for no accuracy, and for no conservation but that of a
force that claims to be a gradient: these are what protocols measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from torch import Tensor

from conservbench.cards import ModelCard, find_model
from conservbench.models.ase import ASEModel
from conservbench.models.base import Model, Prediction, UnsupportedError, check_support, gradient_of_energy
from conservbench.models.load import load_model
from conservbench.scheme import CHANNELS, Channel
from conservbench.state import State, concatenate, from_atoms, select
from conservbench.systems import System, find_system

TOLERANCE: Final = 1e-4
"""Of answers that must be equal, over the size of the forces, for energies times 1 Å: single precision leaves 1e-6."""

ROUNDINGS: Final = 10.0
"""Of an energy, that may be off besides: a sum over atoms rounds more than once, by the size of the energy's zero."""

WORK_TOLERANCE: Final = 1e-3
"""Of an energy difference less the work along its path, over the work: gradients leave 1e-5, direct forces 1e-2."""

_STEP: Final = 0.1
"""Å, root mean square displacement of an atom along a path."""

_STRAIN: Final = 0.02
"""Frobenius norm of a strain."""

_NUDGE: Final = 1e-12
"""Å by which atoms are moved to see whether a model rounds: single precision does not see it, double does."""

_NODES: Final = 4
_SEED: Final = 20251101
_GRADIENT: Final[tuple[Channel, ...]] = ("gradient",)


class NotApplicableError(Exception):
    """A check has nothing to ask of this model, for the reason it gives."""


@dataclass(frozen=True)
class Candidate:
    """A model with states to ask it about.

    Attributes:
        name: what messages call it.
        model: the model.
        state: two different structures of one composition.
        scheme_channels: the channels that its card's force scheme uses; none where there is no card.
    """

    name: str
    model: Model
    state: State
    scheme_channels: tuple[Channel, ...] = ()

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that it says it has."""
        return tuple(self.model.channels)

    @cached_property
    def force_scale(self) -> float:
        """Root mean square of the components of its forces, eV/Å; of the largest channel."""
        return _scale(self.model.evaluate(self.state, forces=self.channels).forces)

    @cached_property
    def rounding(self) -> float:
        """Machine precision that its answers show: double where a move of 1e-12 Å changes forces by as little."""
        nudge = _NUDGE * torch.sin(torch.arange(3.0 * self.state.n_atoms)).view(-1, 3).to(self.state.positions)
        nudged = self.state.replace(positions=self.state.positions + nudge)
        before, after = (self.model.evaluate(each, forces=self.channels).forces for each in (self.state, nudged))
        change = max(float((after[key] - before[key]).detach().abs().max()) for key in self.channels)
        double = 0.0 < change < 1e-8 * self.force_scale
        return torch.finfo(torch.float64 if double else torch.float32).eps


Testable = Candidate | Model | ModelCard | BaseCalculator | str
"""What can be checked: a loaded model, a card, an ASE calculator, or what ``conservbench run -m`` takes."""


@dataclass(frozen=True)
class Check:
    """One conformance check.

    Attributes:
        name: a word or two, joined by hyphens.
        asks: what must hold.
        run: raises AssertionError where it does not, NotApplicableError where there is nothing to ask.
    """

    name: str
    asks: str
    run: Callable[[Candidate], None]

    def __str__(self) -> str:
        return self.name

    def __call__(self, model: Testable, system: str | System | Atoms | None = None) -> None:
        """Check a model; arguments are those of :func:`check_model`.

        A check that has nothing to ask passes.

        Raises:
            AssertionError: it fails; the message names model and check.
            ValueError: see :func:`candidate`.
        """
        try:
            self.ask(candidate(model, system))
        except NotApplicableError:
            return

    def ask(self, subject: Candidate) -> None:
        """Check a candidate.

        Raises:
            AssertionError: it fails; the message names model and check.
            NotApplicableError: there is nothing to ask.
        """
        try:
            self.run(subject)
        except NotApplicableError:
            raise
        except AssertionError as error:
            raise AssertionError(f"{subject.name}: {self.name}: {error}") from None
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise AssertionError(f"{subject.name}: {self.name}: the model raised {said}") from error


def conformance_checks() -> tuple[Check, ...]:
    """All checks, from the plainest on."""
    return _CHECKS


def check_model(model: Testable, system: str | System | Atoms | None = None) -> dict[str, str]:
    """Check that a model keeps to the interface of the suite.

    Args:
        model: a model, its card, an ASE calculator (whose forces count as a gradient; wrap it in
            :class:`conservbench.models.ase.ASEModel` to say otherwise), or a name, a path of a card, or
            ``ase:package.module:factory``.
        system: what it is asked about: a named system, or any structure of which it knows the elements. By default the
            first one that the card names, else ``si-64``.

    Returns:
        Check to why it does not apply, empty where it passed.

    Raises:
        AssertionError: some checks fail; the message has a line for each.
        ValueError: see :func:`candidate`.
        UnsupportedError: the model cannot be asked about the system.
    """
    subject = candidate(model, system)
    said: dict[str, str] = {}
    failures = []
    for check in conformance_checks():
        said[check.name] = ""
        try:
            check.ask(subject)
        except NotApplicableError as error:
            said[check.name] = str(error)
        except AssertionError as error:
            failures.append(str(error))
    if failures:
        raise AssertionError("\n".join(failures))
    return said


def candidate(model: Testable, system: str | System | Atoms | None = None) -> Candidate:
    """What is checked: a model, loaded, and two structures to ask it about; see :func:`check_model`.

    Raises:
        ValueError: there is no such card, system or checkpoint, or it is not as it must be.
        TypeError: it is none of what can be checked.
        UnsupportedError: the model cannot be asked about the system.
    """
    if isinstance(model, Candidate):
        return model
    if isinstance(model, type):
        raise TypeError(f"cannot check the class {model.__name__}; expected an instance, such as {model.__name__}()")
    card = find_model(model) if isinstance(model, str) else model if isinstance(model, ModelCard) else None
    if system is None:
        system = card.systems[0] if card is not None and card.systems else "si-64"
    place = find_system(system) if isinstance(system, str) else system
    if isinstance(place, Atoms):
        place = _system_of(place)
    loaded: Model
    if card is not None:
        loaded, name = load_model(card, place), card.name
    elif isinstance(model, BaseCalculator) or (hasattr(model, "get_forces") and not hasattr(model, "evaluate")):
        loaded, name = ASEModel(model), type(model).__name__  # type: ignore[arg-type]
    elif hasattr(model, "evaluate"):
        loaded, name = model, type(model).__name__  # type: ignore[assignment]
    else:
        raise TypeError(
            f"cannot check a {type(model).__name__}; expected a model, a model card, an ASE calculator or a name"
        )
    frames = [*place.snapshots[:2]] if len(place.snapshots) > 1 else [_rattled(place.sites, seed) for seed in (1, 2)]
    state = from_atoms(frames, device=loaded.device)
    check_support(loaded, state, ())
    _refuse_strange(name, loaded, select(state, [0]), frames[0].get_chemical_formula())
    return Candidate(name, loaded, state, () if card is None else card.scheme.channels)


def _refuse_strange(name: str, model: Model, state: State, formula: str) -> None:
    """Let a model that names no elements say that it does not know a structure; what else is wrong, checks tell.

    Raises:
        UnsupportedError: it does not know it.
    """
    try:
        model.evaluate(state, forces=tuple(model.channels))
    except UnsupportedError as refusal:
        # what a calculator never has is no matter of the structure
        if not isinstance(refusal.__cause__, PropertyNotImplementedError):
            said = " ".join(str(refusal).split())
            raise UnsupportedError(f"{name} cannot be asked about {formula}: {said}") from refusal
    except Exception:  # noqa: S110 - a check asks again and tells
        pass


def _system_of(atoms: Atoms) -> System:
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    formula = atoms.get_chemical_formula()
    return System(
        name=formula,
        version=0,
        title=formula,
        temperature=0.0,
        sites=bare,
        snapshots=tuple(_rattled(bare, seed) for seed in (1, 2)),
        citation="",
        provenance="",
    )


def _rattled(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.05, seed=seed)
    return moved


def _interface(subject: Candidate) -> None:
    model = subject.model
    for name in ("channels", "elements", "differentiable", "labelled", "device"):
        _ensure(hasattr(model, name), f"the model has no attribute {name!r}")
    _ensure(isinstance(model.device, torch.device), f"device is {model.device!r}; expected a torch.device")
    for name in ("differentiable", "labelled"):
        value = getattr(model, name)
        _ensure(isinstance(value, bool), f"{name} is {value!r}; expected True or False")
    channels = model.channels
    known = isinstance(channels, tuple) and bool(channels) and set(channels) <= set(CHANNELS)
    _ensure(known, f"channels is {channels!r}; expected a tuple of some of {', '.join(CHANNELS)}")
    elements = model.elements
    whole = elements is None or (isinstance(elements, frozenset) and all(isinstance(each, int) for each in elements))
    _ensure(whole, f"elements is {elements!r}; expected a frozenset of atomic numbers, or None")
    for channel in subject.scheme_channels:
        _ensure(channel in channels, f"its card's scheme needs {channel} forces; it has {', '.join(channels)}")


def _shapes(subject: Candidate) -> None:
    state, asked = subject.state, subject.channels
    prediction = subject.model.evaluate(state, forces=asked)
    if prediction.energy is not None:
        _ensure_like("energy", prediction.energy, (state.n_systems,), state)
    found = set(prediction.forces)
    _ensure(found == set(asked), f"asked for forces {_list(asked)}; got {_list(found)}")
    for channel in asked:
        _ensure_like(f"{channel} forces", prediction.forces[channel], (state.n_atoms, 3), state)
    _ensure(prediction.stress is None, "a stress came that nobody asked for")
    bare = subject.model.evaluate(state)
    _ensure(not bare.forces, f"asked for no forces; got {_list(bare.forces)}")


def _energy(subject: Candidate) -> None:
    if "gradient" not in subject.channels:
        raise NotApplicableError("it has no gradient forces, which alone must have an energy")
    with_forces = subject.model.evaluate(subject.state, forces=_GRADIENT).energy
    alone = subject.model.evaluate(subject.state).energy
    if with_forces is None or alone is None:
        raise AssertionError("gradient forces without an energy")
    _ensure_same_energy("the energy depends on whether forces are asked for", subject, alone, with_forces)


def _channels(subject: Candidate) -> None:
    state, model = subject.state, subject.model
    absent: list[Channel] = [channel for channel in CHANNELS if channel not in subject.channels]
    for channel in absent:
        _ensure_refused(model, state, (channel,), f"forces of channel {channel!r}, which it does not declare,")
    together = model.evaluate(state, forces=subject.channels).forces
    for channel in subject.channels:
        alone = model.evaluate(state, forces=(channel,)).forces
        _ensure(set(alone) == {channel}, f"asked for {channel} forces; got {_list(alone)}")
        _ensure_equal(
            f"{channel} forces depend on what else is asked for", alone[channel], together[channel], _scale(together)
        )


def _gradient(subject: Candidate) -> None:
    if "gradient" not in subject.channels:
        raise NotApplicableError("it has no gradient forces")
    model, rng = subject.model, np.random.default_rng(_SEED)
    noise, errors, lengths = _noise(subject), [], []
    for start in [select(subject.state, [index]) for index in (0, 0, 1, 1)]:
        steps = torch.as_tensor(rng.normal(size=(start.n_atoms, 3)), device=start.positions.device)
        steps = steps * (_STEP / steps.square().sum(1).mean().sqrt())
        path = [start.replace(positions=start.positions + s * steps) for s in (*_nodes()[0], 0.0, 1.0)]
        said = _evaluated(model, path, _GRADIENT)
        pulls = said.forces["gradient"].view(len(path), -1)[:_NODES].double() @ steps.flatten()
        error, length = _mismatch(_energies(said), -pulls, noise)
        errors.append(error)
        lengths.append(length)
    _ensure_work("gradient forces are not minus the derivative of the energy", errors, lengths)


def _stress(subject: Candidate) -> None:
    model, state = subject.model, subject.state
    if not bool(state.pbc.all()):
        raise NotApplicableError("the system is not periodic in three directions")
    try:
        whole = model.evaluate(state, forces=subject.channels, stress=True)
    except UnsupportedError as refusal:
        raise NotApplicableError(f"it has no stress ({' '.join(str(refusal).split())})") from refusal
    if whole.stress is None:
        raise AssertionError("asked for a stress; got None")
    if whole.energy is None:
        raise AssertionError("a stress without an energy")
    _ensure_like("stress", whole.stress, (state.n_systems, 3, 3), state)
    _ensure_equal("the stress is not symmetric", whole.stress, whole.stress.transpose(-1, -2))
    rng = np.random.default_rng(_SEED + 1)
    noise, errors, lengths = _noise(subject), [], []
    for start in [select(state, [index]) for index in (0, 1)]:
        drawn = rng.normal(size=(3, 3))
        strain = torch.as_tensor(drawn + drawn.T, device=state.cell.device)
        strain = strain * (_STRAIN / strain.norm())
        stretches = [
            torch.eye(3, dtype=strain.dtype, device=strain.device) + s * strain for s in (*_nodes()[0], 0.0, 1.0)
        ]
        path = [start.replace(positions=start.positions @ each, cell=start.cell @ each) for each in stretches]
        said = _evaluated(model, path, (), stress=True)
        if said.stress is None:
            raise AssertionError("asked for a stress; got None")
        rates = torch.stack([torch.linalg.solve(each, strain) for each in stretches])
        volumes = torch.stack([each.volume[0] for each in path])
        slopes = (volumes * (said.stress.double() * rates).sum((1, 2)))[:_NODES]
        error, length = _mismatch(_energies(said), slopes, noise)
        errors.append(error)
        lengths.append(length)
    _ensure_work("the stress is not the derivative of the energy by strain, over the volume", errors, lengths)


def _graph(subject: Candidate) -> None:
    model, state = subject.model, subject.state
    if not model.differentiable:
        _ensure_refused(model, state, subject.channels, "a graph, as it is not differentiable,", graph=True)
        raise NotApplicableError("it is not differentiable, and refuses a graph")
    plain = model.evaluate(state, forces=subject.channels)
    attached = state.replace(positions=state.positions.clone().requires_grad_(True))
    said = model.evaluate(attached, forces=subject.channels, graph=True)
    for channel in subject.channels:
        force = said.forces[channel]
        _ensure(force.requires_grad, f"with graph=True, {channel} forces are not attached to the positions")
        (slope,) = torch.autograd.grad(force.square().sum(), attached.positions, retain_graph=True, allow_unused=True)
        _ensure(slope is not None, f"with graph=True, {channel} forces do not depend on the positions")
        _ensure_equal(f"{channel} forces change with graph=True", force.detach(), plain.forces[channel])
    if "gradient" in subject.channels and said.energy is not None:
        again, _, _ = gradient_of_energy(
            lambda positions, cell: _only_energy(model, state.replace(positions=positions, cell=cell)),
            state,
            forces=False,
            stress=False,
            graph=False,
        )
        _ensure_same_energy("energies change with graph=True", subject, again, said.energy)
        (slope,) = torch.autograd.grad(said.energy.sum(), attached.positions)
        _ensure_equal(
            "the derivative of the energy's graph is not minus the gradient forces", -slope, plain.forces["gradient"]
        )


def _only_energy(model: Model, state: State) -> Tensor:
    energy = model.evaluate(state, graph=True).energy
    if energy is None:
        raise AssertionError("the energy is gone where no forces are asked for")
    return energy


def _batch(subject: Candidate) -> None:
    whole = _answers(subject, subject.state)
    parts = [_answers(subject, select(subject.state, [index])) for index in range(subject.state.n_systems)]
    _ensure_same("a system in a batch is not answered as it is alone", subject, _joined(parts), whole)
    swapped = _answers(subject, select(subject.state, [1, 0]))
    _ensure_same("the order of systems in a batch changes answers", subject, _joined(reversed(parts)), swapped)


def _permutation(subject: Candidate) -> None:
    if subject.model.labelled:
        raise NotApplicableError("it tells atoms apart by their index")
    state = select(subject.state, [0])
    order = torch.as_tensor(np.random.default_rng(_SEED + 2).permutation(state.n_atoms), device=state.positions.device)
    fields = {name: getattr(state, name)[order] for name in ("positions", "momenta", "masses", "numbers")}
    expected, found = _answers(subject, state), _answers(subject, state.replace(**fields))
    moved = {name: value if name == "energy" else value[order] for name, value in expected.items()}
    _ensure_same("the order of the atoms changes answers", subject, moved, found)


def _translation(subject: Candidate) -> None:
    state = select(subject.state, [0])
    shift = torch.tensor([0.37, -1.21, 2.93], dtype=state.positions.dtype, device=state.positions.device)
    moved = state.replace(positions=state.positions + shift)
    _ensure_same("moving all atoms alike changes answers", subject, _answers(subject, state), _answers(subject, moved))


def _images(subject: Candidate) -> None:
    state = select(subject.state, [0])
    if not bool(state.pbc.any()):
        raise NotApplicableError("the system is not periodic")
    axis = int(state.pbc[0].nonzero()[0, 0])
    places = state.positions.clone()
    # a simulation never wraps positions: any atom may be any number of cells away
    places[0] += 2 * state.cell[0, axis]
    places[-1] -= state.cell[-1, axis]
    said = _answers(subject, state.replace(positions=places))
    _ensure_same("an atom in another periodic image changes answers", subject, _answers(subject, state), said)


def _velocity(subject: Candidate) -> None:
    state = select(subject.state, [0])
    drawn = np.random.default_rng(_SEED + 3).normal(size=(state.n_atoms, 3))
    momenta = torch.as_tensor(drawn, device=state.momenta.device)
    moving = state.replace(momenta=momenta, masses=state.masses * 1.5)
    _ensure_same("momenta or masses change answers", subject, _answers(subject, state), _answers(subject, moving))


def _determinism(subject: Candidate) -> None:
    asked, other = (select(subject.state, [index]) for index in (1, 0))
    first = _answers(subject, asked)
    for _ in range(3):
        # many calculators keep the answer to the last question
        _answers(subject, other)
        _ensure_same("the same question is answered in two ways", subject, first, _answers(subject, asked))


def _memory(subject: Candidate) -> None:
    model, state = subject.model, subject.state
    before = {name: getattr(state, name).clone() for name in ("positions", "momenta", "masses", "numbers", "cell")}
    first = _answers(subject, state)
    kept = {name: value.clone() for name, value in first.items()}
    moved = state.replace(
        positions=state.positions + 0.05 * torch.sin(torch.arange(3.0 * state.n_atoms)).view(-1, 3).to(state.positions)
    )
    model.evaluate(select(moved, [1]), forces=subject.channels)
    model.evaluate(concatenate([moved, select(state, [0])]), forces=subject.channels)
    # last a question of the same shape, which a reused buffer or a remembered answer fits
    model.evaluate(moved, forces=subject.channels)
    _ensure(all(torch.equal(kept[name], first[name]) for name in kept), "an answer given changes when more is asked")
    changed = [name for name, value in before.items() if not torch.equal(value, getattr(state, name))]
    _ensure(not changed, f"the model changes the state it is given: {', '.join(changed)}")
    _ensure_same("answers depend on what was asked before", subject, kept, _answers(subject, state))


def _elements(subject: Candidate) -> None:
    known = subject.model.elements
    if known is None:
        raise NotApplicableError("it names no elements: it takes any")
    stranger = next(number for number in range(1, 119) if number not in known)
    numbers = subject.state.numbers.clone()
    numbers[0] = stranger
    state = subject.state.replace(numbers=numbers)
    _ensure_refused(subject.model, state, subject.channels, f"atomic number {stranger}, which it does not name,")


_CHECKS: Final = (
    Check("interface", "attributes of the right types; the channels that the card's scheme needs", _interface),
    Check("shapes", "finite float64 arrays of the right shapes, for what was asked and nothing else", _shapes),
    Check("channels", "channels are refused unless declared, and do not depend on each other", _channels),
    Check("energy", "gradient forces come with an energy", _energy),
    Check("gradient", "gradient forces are minus the derivative of the energy", _gradient),
    Check("stress", "the stress is the derivative of the energy by strain", _stress),
    Check("graph", "with a graph, answers stay attached and stay the same; without one it is refused", _graph),
    Check("batch", "a batch of systems is answered as each alone", _batch),
    Check("permutation", "the order of the atoms does not matter", _permutation),
    Check("translation", "moving all atoms alike does not matter", _translation),
    Check("images", "which periodic image an atom is in does not matter", _images),
    Check("velocities", "momenta and masses do not matter", _velocity),
    Check("determinism", "the same question has the same answer", _determinism),
    Check("memory", "questions asked before do not matter, and neither state nor answers given change", _memory),
    Check("elements", "an element that the model does not name is refused", _elements),
)


def _nodes() -> tuple[list[float], Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return [float(s) for s in 0.5 * (nodes + 1)], torch.as_tensor(0.5 * weights)


def _evaluated(model: Model, path: list[State], forces: tuple[Channel, ...], *, stress: bool = False) -> Prediction:
    return model.evaluate(concatenate(path), forces=forces, stress=stress)


def _energies(said: Prediction) -> Tensor:
    if said.energy is None:
        raise AssertionError("gradient forces without an energy")
    return said.energy.detach().double()


def _mismatch(energies: Tensor, slopes: Tensor, noise: float) -> tuple[float, float]:
    """Energy difference of a path less the integral of its slopes, beyond rounding, and that of their sizes; eV."""
    weights = _nodes()[1].to(slopes.device)
    error = (energies[-1] - energies[-2] - weights @ slopes).abs().item()
    return max(error - noise, 0.0), (weights @ slopes.abs()).item()


def _noise(subject: Candidate) -> float:
    """What rounding makes of a difference of energies, eV: moving all atoms alike changes nothing else if all is right.

    No less than what rounding both once may make, and no more than the precision of the model explains.
    """
    start = select(subject.state, [0])
    shifts = [start.replace(positions=start.positions + shift) for shift in (0.0, 0.1, 0.2)]
    energies = _energies(subject.model.evaluate(concatenate(shifts)))
    most = _rounded(subject, energies)
    return min(max(3.0 * (energies.max() - energies.min()).item(), 2.0 * most / ROUNDINGS), most)


def _rounded(subject: Candidate, energies: Tensor) -> float:
    """What the precision of the model leaves undecided of energies, eV."""
    return ROUNDINGS * subject.rounding * float(energies.detach().abs().max())


def _answers(subject: Candidate, state: State) -> dict[str, Tensor]:
    """All that a model says of a state, by name."""
    said = subject.model.evaluate(state, forces=subject.channels)
    energy = {} if said.energy is None else {"energy": said.energy}
    return {**energy, **{f"{channel} forces": said.forces[channel] for channel in subject.channels}}


def _joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    listed = list(parts)
    return {name: torch.cat([part[name] for part in listed]) for name in listed[0]}


def _scale(forces: Any) -> float:
    return max(float(value.detach().square().mean().sqrt()) for value in forces.values())


def _ensure(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _ensure_like(name: str, value: Any, shape: tuple[int, ...], state: State) -> None:
    _ensure(isinstance(value, Tensor), f"{name}: a {type(value).__name__}; expected a tensor")
    _ensure(tuple(value.shape) == shape, f"{name}: shape is {tuple(value.shape)}; expected {shape}")
    _ensure(value.dtype == torch.float64, f"{name}: dtype is {value.dtype}; expected torch.float64")
    there = value.device.type
    _ensure(there == state.positions.device.type, f"{name}: on {there}; the state is on {state.positions.device.type}")
    _ensure(not value.requires_grad, f"{name}: attached to a graph that nobody asked for")
    astray = int((~torch.isfinite(value)).sum())
    _ensure(astray == 0, f"{name}: {astray} of {value.numel()} values are not finite")


def _ensure_equal(what: str, expected: Tensor, found: Tensor, scale: float | None = None, slack: float = 0.0) -> None:
    if scale is None:
        scale = float(expected.detach().square().mean().sqrt())
    off = float((found.detach() - expected.detach()).abs().max())
    limit = TOLERANCE * max(scale, 1e-6) + slack
    # NaN compares false
    _ensure(off <= limit, f"{what}: by {off:.2g} (limit {limit:.2g})")


def _ensure_same_energy(what: str, subject: Candidate, expected: Tensor, found: Tensor) -> None:
    """The zero of energies is anybody's choice: forces say what is much, over 1 Å."""
    _ensure_equal(what, expected, found, subject.force_scale, _rounded(subject, expected))


def _ensure_same(what: str, subject: Candidate, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        _ensure(name in found, f"{what}: {name} is gone")
        if name == "energy":
            _ensure_same_energy(f"{what} ({name})", subject, value, found[name])
        else:
            _ensure_equal(f"{what} ({name})", value, found[name])


def _ensure_work(what: str, errors: list[float], lengths: list[float]) -> None:
    off = float(np.sqrt(np.mean(np.square(errors))) / max(np.mean(lengths), 1e-12))
    _ensure(
        off <= WORK_TOLERANCE,
        f"{what}: along {len(errors)} short paths they miss its differences by {off:.1%} (limit {WORK_TOLERANCE:.1%})",
    )


def _ensure_refused(model: Model, state: State, forces: tuple[Channel, ...], what: str, *, graph: bool = False) -> None:
    try:
        model.evaluate(state, forces=forces, graph=graph)
    except UnsupportedError:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} must raise UnsupportedError; it raised {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} must raise UnsupportedError; it was answered")


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"
