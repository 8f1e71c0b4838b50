"""Plan the cells (model x protocol x system), measure those that are not done, and record how every one of them ended.

A cell is measured on its own: model and system are loaded for it, random numbers are seeded for it, so that results do
not depend on order, on workers, or on what ran before. Resume rests on the result files alone.
"""

from __future__ import annotations

import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conservbench import plugins, process
from conservbench.cards import (
    CardError,
    ModelCard,
    ProtocolCard,
    build,
    canonical_json,
    checkpoint_of,
    find_model,
    find_parent,
    find_protocol,
    list_models,
    list_protocols,
)
from conservbench.data.catalogue import beside, find_data_set
from conservbench.elements import SYMBOLS
from conservbench.hint import did_you_mean
from conservbench.outcome import Outcome
from conservbench.systems.catalogue import asked_about, concerns, fits, system_names, system_table
from conservbench.workers import News, WorkersError, run_in_workers

if TYPE_CHECKING:
    import xarray as xr

    from conservbench.protocols.base import Report


Card = TypeVar("Card", ModelCard, ProtocolCard)


class RunError(RuntimeError):
    """The run cannot go on; what is finished is kept."""


@dataclass(frozen=True)
class Cell:
    """The unit of work, of resume and of distribution.

    Attributes:
        model: its card.
        protocol: its card.
        system: name of the system.
        system_version: version of the system.
        tier: which settings of the protocol.
        seed: of its random numbers in place of that of the protocol; None for that one.
        data: of the data that its settings name, the setting and the checksum.
    """

    model: ModelCard
    protocol: ProtocolCard
    system: str
    system_version: int
    tier: str
    seed: int | None = None
    data: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"{self.protocol.name} / {self.system} / {self.model.name}"

    @property
    def identity(self) -> str:
        """JSON of all that a finished file must match to be kept."""
        return canonical_json(
            {
                "model": [self.model.name, self.model.version, self.model.digest],
                "protocol": [self.protocol.name, self.protocol.version, self.protocol.digest_on(self.system)],
                "system": [self.system, self.system_version],
                "tier": self.tier,
                # files measured without one stay as they are
                **({} if self.seed is None else {"seed": self.seed}),
                **({"data": dict(self.data)} if self.data else {}),
            }
        )

    @property
    def settings(self) -> Any:
        """The protocol's ``Settings`` of the tier on the system.

        Raises:
            CardError: the card's settings do not fit.
        """
        from conservbench.protocols.base import names_of_data

        kind = plugins.protocol_module(self.protocol.plugin, "settings").Settings
        table = self.protocol.settings(self.tier, self.system)
        # a protocol without random numbers has no seed
        if self.seed is not None and any(each.name == "seed" for each in fields(kind)):
            table["seed"] = self.seed
        there = f" on {self.system}" if self.system in self.protocol.on else ""
        found = build(kind, table, f"{self.protocol.path}: settings of tier {self.tier!r}{there}")
        return replace(found, **{key: beside(name, self.protocol.path) for key, name in names_of_data(found).items()})

    def path(self, out: Path) -> Path:
        """Its result file."""
        from conservbench.result import result_path

        return result_path(out, self.protocol.name, self.system, self.model.name)


class Phase(StrEnum):
    """What an event tells of a cell."""

    KEPT = "kept"
    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"


@dataclass(frozen=True)
class Event:
    """Something happened to a cell.

    Attributes:
        cell: which one.
        phase: what.
        fraction: of the cell that is done, in [0, 1].
        outcome: how it ended; None while it has not.
        reason: of the outcome, one line.
    """

    cell: Cell
    phase: Phase
    fraction: float = 0.0
    outcome: Outcome | None = None
    reason: str = ""


def plan(
    models: Sequence[str] = (),
    protocols: Sequence[str] = (),
    systems: Sequence[str] = (),
    tier: str = "quick",
    seed: int | None = None,
) -> list[Cell]:
    """Cells of the names asked for; an empty list asks for all, but for what cards set apart.

    Without names, a protocol takes models that are run ``by_default``, or made for one of the systems asked for, and
    have no parent, one about tuning (``tuned``) takes those with a parent and their parents, and protocols that are not
    run ``by_default`` are left out. What is asked for by name is run.

    Where systems are asked for, a protocol that is not leaves out those of which it lists no system with all elements.

    A protocol takes the models of its card's ``schemes``. A model whose card names ``systems`` goes to these in place
    of those of the protocol, or to those of them that are asked for; one whose card names ``elements`` to those that it
    knows, or, if it is asked for by name and knows none of them, to those of the ``more_systems`` of the protocol that
    it knows. What is asked for by name and gets no cell is an error; of what is not, such pairs are left out.

    What is wrong with names, cards, settings or checkpoints comes out here, before anything runs. The ``[options]`` of
    a model are for its loader alone to check: what is wrong with them is the recorded failure of each of its cells.

    Args:
        models: names, paths of cards or of folders of them, or ``ase:package.module:factory``.
        protocols: names or paths of cards.
        systems: names; none asks for the systems that each protocol, or the model, lists.
        tier: ``smoke``, ``quick`` or ``standard``.
        seed: of random numbers in place of those of the protocols, 0 or more; None for theirs.

    Raises:
        ValueError: a name, a card, a plugin or a checkpoint is not there or not as it must be, or a model or a
            protocol asked for by name has nothing to be run with.
    """
    from conservbench.protocols.base import names_of_data
    from conservbench.systems import find_system

    model_cards = _once(find_model(name) for name in _unfolded(models) or list_models())
    protocol_cards = _once(find_protocol(name) for name in protocols or list_protocols())
    if not protocols:
        protocol_cards = [card for card in protocol_cards if card.by_default]
    taken = {
        card.name: model_cards if models else _taken_by_default(card, model_cards, systems) for card in protocol_cards
    }
    for model in dict.fromkeys([*(model_cards if models else []), *chain(*taken.values())]):
        for card in (model, model.fast):
            if card is not None:
                plugins.find_entry("conservbench.models", card.loader)
                if card.checkpoint is not None:
                    checkpoint_of(card)
        _check_systems(model.systems, f"{model.path}: systems")
        _check_elements(model)
    for protocol in protocol_cards:
        _check_systems((*protocol.systems, *protocol.more_systems), f"{protocol.path}: systems")
    for name in systems:
        find_system(name)
    wanted = {card.name: systems if protocols else _concerned(card, systems) for card in protocol_cards}
    protocol_cards = [card for card in protocol_cards if wanted[card.name] or not systems]
    places = {
        protocol.name: {
            model.path: _places(model, protocol, wanted[protocol.name], named=bool(models))
            for model in taken[protocol.name]
        }
        for protocol in protocol_cards
    }
    cells = [
        Cell(model, protocol, system, system_table(system)["version"], tier, seed)
        for protocol in protocol_cards
        for system in dict.fromkeys([*(systems or protocol.systems), *chain(*places[protocol.name].values())])
        for model in taken[protocol.name]
        if model.scheme.kind in protocol.schemes and system in places[protocol.name][model.path]
    ]
    _refuse_doubles(cells)
    _refuse_idlers(cells, model_cards if models else [], protocol_cards if protocols else [], systems)
    # settings are read, and data looked for, once a protocol and system
    data = {
        place: tuple((key, find_data_set(name).checksum()) for key, name in names_of_data(cell.settings).items())
        for place, cell in {(cell.protocol.name, cell.system): cell for cell in cells}.items()
    }
    return [replace(cell, data=data[cell.protocol.name, cell.system]) for cell in cells]


def _once(cards: Iterable[Card]) -> list[Card]:
    """Cards in their order, each file once: one card has a name and any number of paths."""
    found: dict[Path, Card] = {}
    for card in cards:
        found.setdefault(card.path.resolve(), card)
    return list(found.values())


def _unfolded(models: Sequence[str]) -> list[str]:
    """The same names, with the cards of a folder in its place; a model of the name of a folder comes first.

    Raises:
        CardError: a folder holds no card.
    """
    names: list[str] = []
    for name in models:
        if Path(name).is_dir() and name not in list_models():
            cards = sorted(str(path) for path in Path(name).glob("*.toml"))
            if not cards:
                raise CardError(f"{name}: no card (*.toml) in this folder")
            names += cards
        else:
            names.append(name)
    return names


def _concerned(protocol: ProtocolCard, systems: Sequence[str]) -> Sequence[str]:
    return [name for name in systems if concerns(protocol.systems, protocol.more_systems, name)]


def _places(model: ModelCard, protocol: ProtocolCard, systems: Sequence[str], *, named: bool) -> Sequence[str]:
    """The systems that a model is run on: those asked for that it is made for or knows, or those it is asked about."""
    if systems:
        return [name for name in systems if (name in model.systems if model.systems else fits(model.elements, name))]
    more = protocol.more_systems if named else ()
    return asked_about(model.systems, model.elements, protocol.systems, more)


def _check_systems(names: Sequence[str], where: str) -> None:
    for name in names:
        if name not in system_names():
            raise CardError(f"{where}: no system {name!r}{did_you_mean(name, system_names())}")


def _check_elements(model: ModelCard) -> None:
    for symbol in model.elements:
        if symbol not in SYMBOLS:
            raise CardError(f"{model.path}: elements: no element {symbol!r}{did_you_mean(symbol, SYMBOLS)}")


def _taken_by_default(protocol: ProtocolCard, models: Sequence[ModelCard], systems: Sequence[str]) -> list[ModelCard]:
    """The models that a protocol takes where none is asked for by name; those made for the systems asked for are.

    Raises:
        CardError: the parent of one of them cannot be found.
    """
    if not protocol.tuned:
        return [
            model
            for model in models
            if model.parent is None and (model.by_default or not set(systems).isdisjoint(model.systems))
        ]
    tuned = [model for model in models if model.parent is not None]
    parents = [parent for parent in map(find_parent, tuned) if parent is not None]
    return list({model.path: model for model in (*parents, *tuned)}.values())


def kept_outcome(cell: Cell, out: Path, device: str) -> Outcome | None:
    """How a cell ended, if its file is whole, final, of this identity and of this type of device.

    Otherwise None: it is to be measured.
    """
    from conservbench.result import ResultError, read_attributes

    path = cell.path(out)
    if not path.exists():
        return None
    try:
        attributes = read_attributes(path)
    except ResultError as error:
        warnings.warn(f"{error}; measuring it again", stacklevel=2)
        return None
    finals = {outcome.value: outcome for outcome in Outcome if outcome.is_final}
    measured_on = json.loads(attributes.get("provenance", "{}")).get("device", "")
    same = attributes.get("identity") == cell.identity and _device_type(measured_on) == _device_type(device)
    return finals.get(attributes["outcome"]) if same else None


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    device: str = "cpu",
    fresh: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> dict[Cell, Outcome]:
    """Measure the cells that have no finished file yet.

    Args:
        cells: what :func:`plan` returned.
        out: results folder.
        jobs: worker processes; 1 measures in this process.
        device: torch device of the models.
        fresh: measure finished cells again too.
        on_event: told of everything that happens to a cell, in this thread.

    Returns:
        How each cell ended.

    Raises:
        RunError: workers cannot be started, or a result file cannot be written.
        KeyboardInterrupt: passed on after workers were stopped; finished cells are kept.
    """
    endings: dict[Cell, Outcome] = {}

    def notify(event: Event) -> None:
        if event.outcome is not None:
            endings[event.cell] = event.outcome
        on_event(event)

    todo = []
    for cell in cells:
        kept = None if fresh else kept_outcome(cell, out, device)
        if kept is None:
            todo.append(cell)
        else:
            notify(Event(cell, Phase.KEPT, 1.0, kept))
    if jobs == 1:
        for cell in todo:
            notify(Event(cell, Phase.STARTED))
            outcome, reason = measure_cell(cell, out, device, _throttled(partial(_tell, notify, cell)))
            notify(Event(cell, Phase.ENDED, 1.0, outcome, reason))
    elif todo:
        _run_in_workers(todo, out, jobs, device, notify)
    return {cell: endings[cell] for cell in cells}


def measure_cell(cell: Cell, out: Path, device: str, report: Report) -> tuple[Outcome, str]:
    """Measure one cell in this process and write its file, however it ends.

    Args:
        cell: what to measure.
        out: results folder.
        device: torch device of the model.
        report: told the fraction done.

    Returns:
        How it ended, and why, in one line.

    Raises:
        RunError: its file cannot be written.
    """
    import xarray as xr

    started = time.monotonic()
    try:
        data = _measure(cell, device, report)
        return _record(cell, out, device, data, time.monotonic() - started)
    except RunError:
        raise
    except (Exception, SystemExit) as error:
        data = xr.Dataset(attrs=_ending_of(error))
        return _record(cell, out, device, data, time.monotonic() - started)


def _measure(cell: Cell, device: str, report: Report) -> xr.Dataset:
    with process.quiet_loading():
        import torch

        from conservbench.models.base import check_support
        from conservbench.models.load import load_model
        from conservbench.state import from_atoms
    from conservbench.systems import find_system

    settings = cell.settings
    system = find_system(cell.system)
    measure = plugins.protocol_module(cell.protocol.plugin, "measure").measure
    dtype = None if cell.protocol.dtype == "model" else cell.protocol.dtype
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(getattr(settings, "seed", 0))
    try:
        with process.quiet_stdout():
            with process.quiet_loading():
                model = load_model(cell.model, system, device=device, dtype=dtype)
            check_support(model, from_atoms(system.sites, device=model.device), cell.model.scheme.channels)
            return measure(model, cell.model.scheme, system, settings, report)
    finally:
        torch.set_num_threads(threads)


def _ending_of(error: BaseException) -> dict[str, str]:
    """Attributes that record an exception."""
    import torch

    from conservbench.models.base import UnsupportedError

    if isinstance(error, UnsupportedError):
        return {"outcome": Outcome.UNSUPPORTED.value, "outcome_reason": _one_line(error)}
    reason = _one_line(error)
    if not isinstance(error, CardError):
        reason = f"{type(error).__name__}: {reason}"
    # torch reports a full memory of the CPU as a plain RuntimeError of its allocator
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in reason:
        return {"outcome": Outcome.OUT_OF_MEMORY.value, "outcome_reason": reason}
    frames = traceback.extract_tb(error.__traceback__)
    # file names without their folders: a result names no user
    trace = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}: {frame.line}" for frame in frames]
    return {"outcome": Outcome.FAILED.value, "outcome_reason": reason, "traceback": "\n".join(trace)}


def _record(cell: Cell, out: Path, device: str, data: xr.Dataset, seconds: float) -> tuple[Outcome, str]:
    from conservbench.provenance import provenance
    from conservbench.result import WriteError, write_result

    outcome = Outcome(data.attrs.get("outcome", Outcome.COMPLETED))
    reason = str(data.attrs.get("outcome_reason", ""))
    settings = asdict(cell.settings)
    dtype = cell.model.dtype if cell.protocol.dtype == "model" else cell.protocol.dtype
    origin = provenance(
        device=device,
        dtype=dtype,
        threads=1,
        seeds={key: value for key, value in settings.items() if "seed" in key},
        digests={
            "model": cell.model.digest,
            "protocol": cell.protocol.digest_on(cell.system),
            "system": f"{cell.system} {cell.system_version}",
            **dict(cell.data),
        },
    )
    attributes = {
        "outcome": outcome.value,
        "outcome_reason": reason,
        "model": cell.model.name,
        "protocol": cell.protocol.name,
        "system": cell.system,
        "tier": cell.tier,
        "identity": cell.identity,
        "model_card": cell.model.to_json(),
        "protocol_card": cell.protocol.to_json(),
        "provenance": canonical_json({**origin, "seconds": round(seconds, 3)}),
    }
    try:
        write_result(data.assign_attrs(attributes), cell.path(out))
    except WriteError as error:
        raise RunError(f"{error}; finished cells are kept: make room, and the same command goes on") from error
    return outcome, reason


def _run_in_workers(cells: list[Cell], out: Path, jobs: int, device: str, notify: Callable[[Event], None]) -> None:
    """Measure cells in spawned processes; a process that dies costs only the cell that killed it."""
    import xarray as xr

    def hear(cell: Cell, news: News, said: Any) -> None:
        match news:
            case News.STARTED:
                notify(Event(cell, Phase.STARTED))
            case News.TOLD:
                notify(Event(cell, Phase.PROGRESS, said))
            case News.ENDED:
                notify(Event(cell, Phase.ENDED, 1.0, *said))
            case News.DIED:
                reason = "its worker died twice, killed by the system or by the model's own code"
                data = xr.Dataset(attrs={"outcome": Outcome.FAILED.value, "outcome_reason": reason})
                notify(Event(cell, Phase.ENDED, 1.0, *_record(cell, out, device, data, 0.0)))

    try:
        run_in_workers(partial(_work, out, device), cells, jobs=jobs, hear=hear)
    except WorkersError as error:
        advice = "a script must call this under `if __name__ == '__main__':`, or with jobs=1"
        raise RunError(f"{error}; {advice}") from error


def _work(out: Path, device: str, cell: Cell, tell: Callable[[float], None]) -> tuple[Outcome, str]:
    outcome, reason = measure_cell(cell, out, device, _throttled(tell))
    # what is told is to be short
    return outcome, reason[:300]


def _tell(notify: Callable[[Event], None], cell: Cell, fraction: float) -> None:
    notify(Event(cell, Phase.PROGRESS, fraction))


def _throttled(report: Report, interval: float = 0.25) -> Report:
    """Pass on no more than one report an interval (s)."""
    last = float("-inf")

    def passed(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= interval:
            last = now
            report(min(max(float(fraction), 0.0), 1.0))

    return passed


def _refuse_doubles(cells: Sequence[Cell]) -> None:
    seen: dict[tuple[str, str, str], Cell] = {}
    for cell in cells:
        first = seen.setdefault((cell.protocol.name, cell.system, cell.model.name), cell)
        if first is not cell:
            raise CardError(f"two cards give the same cell {cell.label}: {first.model.path} and {cell.model.path}")


def _refuse_idlers(
    cells: Sequence[Cell], models: Sequence[ModelCard], protocols: Sequence[ProtocolCard], systems: Sequence[str]
) -> None:
    """Refuse models and protocols that were asked for by name and have no cell, and a plan without any."""
    for protocol in protocols:
        if not any(cell.protocol is protocol for cell in cells):
            where = ", ".join(systems or protocol.systems)
            none = "there is no tuned one: name models with -m" if protocol.tuned else "there is none"
            raise CardError(
                f"protocol {protocol.name!r} takes models of scheme {_or(protocol.schemes)} on {where};"
                f" {_whereabouts(models) if models else none}"
            )
    for model in models:
        if not any(cell.model is model for cell in cells):
            takers = "; ".join(
                f"protocol {each.name!r} takes models of scheme {_or(each.schemes)} on"
                f" {', '.join(systems or each.systems)}"
                for each in protocols
            )
            there = f"no protocol takes it on {', '.join(systems)}" if systems else "no protocol takes it"
            raise CardError(f"nothing to run: {_whereabouts([model])}; {takers or there}")
    if not cells:
        raise CardError(f"nothing to run: no model is made for {', '.join(systems)}")


def _whereabouts(models: Sequence[ModelCard]) -> str:
    """Scheme, systems and elements of models, in words."""
    said = []
    for model in models:
        made_for = f" for {', '.join(model.systems)}" if model.systems else ""
        knows = f" and knows {', '.join(model.elements)} alone" if model.elements else ""
        said.append(f"{model.name} is of scheme {model.scheme.kind}{made_for}{knows}")
    return "; ".join(said)


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)


def _device_type(device: str) -> str:
    """``cuda`` of ``cuda:1``: which of them measured does not matter."""
    return device.partition(":")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
