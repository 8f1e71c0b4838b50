"""Cards: the TOML files that say what can be evaluated (models) and what is measured (protocols).

A card is read strictly: an unknown key, a missing one or a wrong type is an error that names file, key and what was
expected. Its identity is its name and the version its author bumps by hand; a digest of what determines the numbers
(not of titles, citations or gates) catches a card that changed without a new version.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from conservbench.hint import did_you_mean
from conservbench.plugins import card_folders
from conservbench.scheme import KINDS, Kind, Scheme

T = TypeVar("T")

Tier = Literal["smoke", "quick", "standard"]
TIERS: tuple[Tier, ...] = get_args(Tier)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CardError(ValueError):
    """A card is not there, or not as it must be; one line that names file and key."""


@dataclass(frozen=True)
class Tuning:
    """What tuning did to a model, as its card records it under ``[tuning]``.

    Errors are mean absolute ones on test frames, before (the parent's) and after; None where the model has no such
    output.

    Attributes:
        target: what it was tuned to, such as ``rdf + elastic``.
        steps: of the optimiser.
        evaluations: forces of 64 atoms that were evaluated for it.
        seconds: that it took.
        rejected: steps that were taken back, because the model was unstable after them.
        control: name of the row that was tuned to energies and forces instead; None in that row.
        energy_before: meV/atom.
        energy_after: meV/atom.
        gradient_before: of gradient forces, meV/Å.
        gradient_after: of gradient forces, meV/Å.
        direct_before: of direct forces, meV/Å.
        direct_after: of direct forces, meV/Å.

    Raises:
        ValueError: a number is negative or not finite, or an error is given before or after alone.
    """

    target: str
    steps: int
    evaluations: float
    seconds: float
    rejected: int = 0
    control: str | None = None
    energy_before: float | None = None
    energy_after: float | None = None
    gradient_before: float | None = None
    gradient_after: float | None = None
    direct_before: float | None = None
    direct_after: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            # NaN compares false
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"{each.name} is {value}; expected 0 or more")
        for key in ("energy", "gradient", "direct"):
            if (getattr(self, f"{key}_before") is None) != (getattr(self, f"{key}_after") is None):
                raise ValueError(f"{key}_before and {key}_after go together")


@dataclass(frozen=True)
class ModelCard:
    """Passport of a model: what it is, how it is loaded, and the force scheme it is run under.

    Attributes:
        name: equal to the name of its file.
        version: raised by hand whenever its numbers may change.
        title: one line.
        loader: name of the plugin that loads it.
        scheme: keys ``scheme`` and ``stride`` of the card.
        fast: under scheme ``mts``, the model whose force is the fast one; the model's own direct force if there is
            none. In the card it is a name, or a path relative to the card.
        systems: the systems the model is made for, and is run on in place of those of a protocol; empty for any.
        elements: symbols of those it knows, so that it is not asked about others; empty where it takes any.
        by_default: whether it is run where no model is asked for by name, nor one of its ``systems``.
        role: ``control`` marks a row whose answer is known beforehand.
        checkpoint: absolute path; in the card it is relative to the card.
        sha256: checksum of the checkpoint.
        dtype: precision the model is run in unless the protocol asks for another.
        twin: another row made of the same network, by name.
        parent: the model it was tuned from, by name or by a path relative to the card; see :func:`find_parent`.
        tuning: record of the tuning; None where there is no parent.
        options: what the loader is told; the loader checks the keys.
        authors: who made the model.
        license: of the model, SPDX where there is one.
        doi: of the model's paper or record.
        bibtex: how to cite it.
        training_data: what it was fitted to.
        notes: what a reader of its numbers must know.
        path: the card itself.
        digest: SHA-256 of what determines the model's numbers.
        document: the card as parsed.
    """

    name: str
    version: int
    title: str
    loader: str
    scheme: Scheme
    path: Path
    digest: str
    document: Mapping[str, Any] = field(repr=False, compare=False)
    role: Literal["model", "control"] = "model"
    checkpoint: Path | None = None
    sha256: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    fast: ModelCard | None = None
    systems: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    by_default: bool = True
    twin: str | None = None
    parent: str | None = None
    tuning: Tuning | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    authors: tuple[str, ...] = ()
    license: str = ""
    doi: str = ""
    bibtex: str = ""
    training_data: str = ""
    notes: str = ""

    def to_json(self) -> str:
        """The card as parsed and its digest, and that of the fast model, for the record of a result."""
        fast = {} if self.fast is None else {"fast_card": json.loads(self.fast.to_json())}
        return json.dumps({**self.document, "digest": self.digest, **fast}, ensure_ascii=False)


@dataclass(frozen=True)
class Metric:
    """One number of a protocol, as its card declares it under ``[metrics.KEY]``.

    Attributes:
        key: name of the metric.
        label: heading of its column.
        unit: of value and limits.
        headline: whether the table of all protocols shows it.
        digits: decimals shown.
        below: gate: the value must be lower than this; None for no such limit.
        above: gate: the value must be higher than this; None for no such limit.
        source: where the limit comes from.
        better: which values are better: ``lower``, ``higher``, or near ``zero``; None where none is, so that the metric
            takes part in no rank and no check.
        tolerance: a change for the worse that nobody minds, in ``unit``.
        relative_tolerance: the same as a share of the size of the value it is compared with; the larger one counts.
        least: the lowest value that is possible; None where nothing bounds it. An interval may reach beyond.
        most: the highest value that is possible, likewise.
        exact: whether an interval of it may have no width: it is computed without anything random, is a probability, or
            comes of counts, which may agree.
        bound: whether it may be a lower or an upper bound, so that one end of an interval is open.
        twin: whether it compares with the result of the model's ``twin``.
        parent: whether it compares with the result of the model's ``parent``.
        control: whether it compares with the result of the ``control`` of the model's tuning.
        top: whether it compares with the result of the model that the settings of the protocol call ``top``.
        timed: whether it rests on the times or the memory of a machine, so that two values can be compared only where
            one running machine took both.

    Raises:
        ValueError: it compares with more than one of them, or a tolerance is negative or not finite.
    """

    key: str
    label: str
    unit: str
    headline: bool = False
    digits: int = 3
    below: float | None = None
    above: float | None = None
    source: str = ""
    better: Literal["lower", "higher", "zero"] | None = None
    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    least: float | None = None
    most: float | None = None
    exact: bool = False
    bound: bool = False
    twin: bool = False
    parent: bool = False
    control: bool = False
    top: bool = False
    timed: bool = False

    def __post_init__(self) -> None:
        if self.twin + self.parent + self.control + self.top > 1:
            raise ValueError("a metric compares with one of twin, parent, control and top")
        for key in ("tolerance", "relative_tolerance"):
            # NaN compares false
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"{key} is {getattr(self, key)}; expected 0 or more")

    @property
    def gated(self) -> bool:
        """Whether it has a limit."""
        return self.below is not None or self.above is not None

    @property
    def compares(self) -> bool:
        """Whether it is of a row beside another one."""
        return self.twin or self.parent or self.control or self.top


@dataclass(frozen=True)
class ProtocolCard:
    """A question, the systems it is asked on, and the settings and gates of the measurement.

    Attributes:
        name: equal to the name of its file.
        version: raised by hand whenever its numbers may change.
        title: one line.
        question: what it finds out.
        method: how, with the paper.
        plugin: name of the protocol plugin; the card's name unless it says otherwise.
        systems: names of the systems it is run on where none is asked for.
        more_systems: names of systems that it is run on where they, or models that know no element of the others, are
            asked for.
        schemes: kinds of force schemes it has a question for; models of others are left out.
        tuned: whether it is about tuning: without names, it takes models with a parent and those parents, and other
            protocols take models without.
        by_default: whether it is run where no protocol is asked for by name.
        bibtex: how to cite the method.
        dtype: ``model`` runs each model in its own precision, ``float64`` runs all in double.
        metrics: key to metric, in the order of the card.
        tiers: tier to settings: ``[settings]`` overlaid by ``[tiers.TIER]``.
        on: system to settings that overlay those of each tier there, and tier to more of them; ``[on.SYSTEM]`` and
            ``[on.SYSTEM.TIER]``.
        path: the card itself.
        digest: SHA-256 of what determines the measurement on systems without settings of their own.
        document: the card as parsed.

    Raises:
        ValueError: there is no scheme, or a system is listed twice, or has settings and is not listed.
    """

    name: str
    version: int
    title: str
    question: str
    method: str
    plugin: str
    systems: tuple[str, ...]
    path: Path
    digest: str
    document: Mapping[str, Any] = field(repr=False, compare=False)
    more_systems: tuple[str, ...] = ()
    schemes: tuple[Kind, ...] = KINDS
    tuned: bool = False
    by_default: bool = True
    bibtex: str = ""
    dtype: Literal["model", "float64"] = "model"
    metrics: Mapping[str, Metric] = field(default_factory=dict, hash=False)
    tiers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.schemes:
            raise ValueError(f"schemes is empty; expected some of {', '.join(KINDS)}")
        listed = (*self.systems, *self.more_systems)
        for name in listed:
            if listed.count(name) > 1:
                raise ValueError(f"system {name!r} is listed twice")
        for name in self.on:
            if name not in listed:
                raise ValueError(f"[on.{name}]: no system of this card{did_you_mean(name, listed)}")

    def settings(self, tier: str, system: str = "") -> dict[str, Any]:
        """Settings of a tier on a system, as the card writes them.

        Raises:
            CardError: the tier is not known.
        """
        if tier not in self.tiers:
            raise CardError(f"unknown tier {tier!r}{did_you_mean(tier, TIERS)}")
        own = self.on.get(system, {})
        shared = {key: value for key, value in own.items() if key not in TIERS}
        return {**self.tiers[tier], **shared, **own.get(tier, {})}

    def digest_on(self, system: str) -> str:
        """SHA-256 of what determines the measurement on a system; see :func:`digest_on`."""
        return digest_on({**self.document, "digest": self.digest}, system)

    def to_json(self) -> str:
        """The card as parsed and its digest, for the record of a result."""
        return json.dumps({**self.document, "digest": self.digest}, ensure_ascii=False)


def find_model(name: str) -> ModelCard:
    """Read a model card.

    Args:
        name: a name, a path to a ``.toml`` file, or ``ase:package.module:factory`` for any ASE calculator.

    Raises:
        CardError: there is no such card, or it is not as it must be.
    """
    if name.startswith("ase:"):
        return _ase_card(name)
    return read_model(_find("models", name))


def find_parent(card: ModelCard) -> ModelCard | None:
    """The card of the model that one was tuned from; None where it was not tuned.

    Raises:
        CardError: there is no such card, or it is not as it must be.
    """
    if card.parent is None:
        return None
    try:
        return find_model(_beside(card.path, card.parent))
    except CardError as error:
        raise CardError(f"{card.path}: parent: {error}") from error


def row_name(reference: str) -> str:
    """The name of the model that a card refers to by name, or by the path of its card."""
    return Path(reference).stem if reference.endswith(".toml") else reference


def find_protocol(name: str) -> ProtocolCard:
    """Read a protocol card by its name or by a path to a ``.toml`` file.

    Raises:
        CardError: there is no such card, or it is not as it must be.
    """
    return read_protocol(_find("protocols", name))


def list_models() -> list[str]:
    """Names of all model cards."""
    return sorted(_index("models"))


def list_protocols() -> list[str]:
    """Names of all protocol cards."""
    return sorted(_index("protocols"))


def model_of(document: dict[str, Any], path: Path) -> ModelCard:
    """The model card of a parsed file.

    Args:
        document: what the TOML holds.
        path: of the file, to which paths in it are relative; it need not be there.

    Raises:
        CardError: it is not as it must be.
    """
    card = _model(document, path)
    _check_name(card.name, path)
    return card


def read_model(path: Path) -> ModelCard:
    """Read a model card from a file.

    Raises:
        CardError: it is not as it must be.
    """
    return model_of(parse(path), path)


def read_protocol(path: Path) -> ProtocolCard:
    """Read a protocol card from a file.

    Raises:
        CardError: it is not as it must be.
    """
    document, where = parse(path), str(path)
    keys = (set(_keys(ProtocolCard)) - {"path", "digest", "document"}) | {"settings"}
    exact_keys(document, keys, where)
    base = _typed(document.get("settings", {}), dict[str, Any], f"{where}: settings")
    overlays = _typed(document.get("tiers", {}), dict[str, dict[str, Any]], f"{where}: tiers")
    exact_keys(overlays, TIERS, f"{where}: [tiers]")
    for system, own in _typed(document.get("on", {}), dict[str, dict[str, Any]], f"{where}: on").items():
        for tier in set(TIERS) & set(own):
            _typed(own[tier], dict[str, Any], f"{where}: [on.{system}.{tier}]")
    _typed(document.get("metrics", {}), dict[str, dict[str, Any]], f"{where}: metrics")
    table: dict[str, Any] = {
        "plugin": document.get("name"),
        **{key: value for key, value in document.items() if key != "settings"},
        "metrics": metrics_of(document, where),
        "tiers": {tier: {**base, **overlays.get(tier, {})} for tier in TIERS},
    }
    digest = _digest({key: table.get(key) for key in ("plugin", "dtype", "tiers")})
    card = build(ProtocolCard, {**table, "path": path, "digest": digest, "document": document}, where)
    _check_name(card.name, path)
    return card


def digest_on(document: Mapping[str, Any], system: str) -> str:
    """SHA-256 of what determines the measurement on a system: the digest of the card, where it has no settings for it.

    So that a card which is given settings for one more system stays the same for all others.

    Args:
        document: a protocol card as parsed, with its digest.
        system: name of the system.
    """
    digest = str(document.get("digest", ""))
    own = document.get("on", {}).get(system)
    return digest if own is None else _digest([digest, own])


def metrics_of(document: Mapping[str, Any], where: str) -> dict[str, Metric]:
    """Key to metric, as the document of a protocol card declares them.

    Args:
        document: a card as parsed.
        where: start of error messages.

    Raises:
        CardError: a metric is not as it must be.
    """
    declared = document.get("metrics", {})
    return {key: build(Metric, {**declared[key], "key": key}, f"{where}: [metrics.{key}]") for key in declared}


def card_in_force(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the protocol card in force, if it is of the same name, version and digest; else the one given.

    Titles and gates are no part of a version: what was measured before one was mended is judged by the mended.

    Args:
        document: a card as parsed, with its digest, as a result carries it.
    """
    # a name alone: a path would be read, too
    if document["name"] not in _index("protocols"):
        return dict(document)
    card = find_protocol(str(document["name"]))
    same = (card.version, card.digest) == (document.get("version"), document.get("digest"))
    return json.loads(card.to_json()) if same else dict(document)


def checkpoint_of(card: ModelCard) -> Path:
    """The checkpoint of a card, after its checksum was verified.

    Raises:
        CardError: the card names none, the file is missing, or it is not the one the card means.
    """
    if card.checkpoint is None:
        raise CardError(f"{card.path}: missing key 'checkpoint': loader {card.loader!r} needs one")
    if not card.checkpoint.is_file():
        raise CardError(f"{card.path}: checkpoint: no file {card.checkpoint}")
    found = file_digest(card.checkpoint)
    if card.sha256 is not None and found != card.sha256.lower():
        raise CardError(f"{card.path}: checkpoint {card.checkpoint} has sha256 {found}; expected {card.sha256}")
    return card.checkpoint


def exact_keys(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Check that a table has no key but the allowed ones.

    Raises:
        CardError: it has; the message names the key and the nearest allowed one.
    """
    allowed = list(allowed)
    for key in table:
        if key not in allowed:
            raise CardError(f"{where}: unknown key {key!r}{did_you_mean(key, allowed)}")


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of a TOML table: exact keys, none missing, every type as annotated.

    Arrays become tuples, whole numbers become floats where a float is annotated, tables become nested dataclasses.

    Args:
        kind: the dataclass.
        table: the parsed table.
        where: start of error messages, such as the file and the heading of the table.

    Raises:
        CardError: the table does not fit, or the dataclass refuses its values.
    """
    exact_keys(table, _keys(kind), where)
    hints = _hints(kind)  # type: ignore[arg-type]
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise CardError(f"{where}: missing key {each.name!r} (expected {_spelled(hints[each.name])})")
    values = {key: _typed(value, hints[key], f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise CardError(f"{where}: {error}") from error


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)


def _model(document: dict[str, Any], path: Path) -> ModelCard:
    where = str(path)
    keys = (set(_keys(ModelCard)) - {"path", "digest", "document"}) | {"stride"}
    exact_keys(document, keys, where)
    table = {key: value for key, value in document.items() if key != "stride"}
    if "scheme" in document:
        kind = _typed(document["scheme"], Kind, f"{where}: scheme")
        if kind == "mts" and "stride" not in document:
            raise CardError(f"{where}: missing key 'stride' (expected a whole number): scheme 'mts' needs one")
        stride = _typed(document.get("stride", 1), int, f"{where}: stride")
        try:
            table["scheme"] = Scheme(kind, stride)
        except ValueError as error:
            raise CardError(f"{where}: {error}") from error
    checkpoint = None
    if "checkpoint" in document:
        checkpoint = (path.parent / _typed(document["checkpoint"], str, f"{where}: checkpoint")).resolve()
        table["checkpoint"] = checkpoint
    core = {key: document.get(key) for key in ("loader", "scheme", "stride", "dtype", "options", "sha256")}
    if "fast" in document:
        table["fast"] = _fast(_typed(document["fast"], str, f"{where}: fast"), table.get("scheme"), path)
        core["fast"] = [table["fast"].version, table["fast"].digest]
    # a checkpoint without a declared checksum still makes another model when its content changes
    if checkpoint is not None and checkpoint.is_file() and "sha256" not in document:
        core["sha256"] = file_digest(checkpoint)
    table["tuning"] = _tuning(document, path)
    return build(ModelCard, {**table, "path": path, "digest": _digest(core), "document": document}, where)


def _tuning(document: Mapping[str, Any], path: Path) -> Tuning | None:
    """The record of a tuned model, which has a parent; neither it nor the control may be the model itself.

    A name is looked up where its card is needed, as that of a twin is: a card can be read without its relations.
    """
    for key, other in (("parent", "tuning"), ("tuning", "parent")):
        if key in document and other not in document:
            raise CardError(f"{path}: missing key {other!r}: {key} and {other} go together")
    if "parent" not in document:
        return None
    parent = _typed(document["parent"], str, f"{path}: parent")
    if row_name(parent) == document.get("name"):
        raise CardError(f"{path}: parent is {parent!r}, the model itself; expected the model it was tuned from")
    if parent.endswith(".toml") and not Path(_beside(path, parent)).is_file():
        raise CardError(f"{path}: parent: no card {parent}")
    tuning = build(Tuning, _typed(document["tuning"], dict[str, Any], f"{path}: tuning"), f"{path}: [tuning]")
    if tuning.control is not None and row_name(tuning.control) == document.get("name"):
        raise CardError(f"{path}: [tuning]: control is {tuning.control!r}, the model itself; leave it out there")
    return tuning


def _beside(path: Path, reference: str) -> str:
    """A reference of a card as one can look it up from anywhere: a path is relative to the card."""
    return str(path.parent / reference) if reference.endswith(".toml") else reference


def _fast(name: str, scheme: Scheme | None, path: Path) -> ModelCard:
    """The card of the fast model; a chain or a circle of them cannot be, because its own scheme has one channel."""
    if scheme is not None and scheme.kind != "mts":
        raise CardError(f"{path}: fast goes with scheme 'mts', not with {scheme.kind!r}")
    try:
        found = _find("models", _beside(path, name))
        # told before the card is read: one that named this one would be read for ever
        if parse(found).get("scheme") == "mts":
            raise CardError(f"{name!r} is of scheme 'mts' itself; expected a card of scheme gradient or direct")
        return read_model(found)
    except CardError as error:
        raise CardError(f"{path}: fast: {error}") from error


def _ase_card(name: str) -> ModelCard:
    factory = name.removeprefix("ase:")
    module, _, attribute = factory.partition(":")
    if not module or not attribute:
        raise CardError(f"{name!r}: expected ase:package.module:factory")
    look_in_current_folder()
    try:
        spec = find_spec(module)
    except Exception as error:  # a package above the module is imported, and may raise anything
        absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        if not absent:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise CardError(f"{name!r}: module {module!r} cannot be looked up: {said}") from error
        spec = None
    if spec is None:
        raise CardError(f"{name!r}: no module {module!r} on the Python path")
    document = {
        "name": name,
        "version": 0,
        "title": f"ASE calculator {factory}",
        "loader": "ase",
        "scheme": "gradient",
        "options": {"factory": factory},
    }
    if (source := source_file(spec)) is not None:
        # nobody bumps a version of such a model: the source of its factory stands in
        document["sha256"] = file_digest(source)
    return _model(document, Path(name))


def look_in_current_folder() -> None:
    """Let modules of the current folder be found, as ``python -m`` does: a factory usually lies where one works.

    Console scripts and worker processes do not look there by themselves. It comes last, so that it hides no package.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def source_file(spec: ModuleSpec) -> Path | None:
    """The file of a module; None where it has none, as a package without ``__init__.py``."""
    origin = None if spec.origin is None else Path(spec.origin)
    return origin if origin is not None and origin.is_file() else None


def _find(kind: Literal["models", "protocols"], name: str) -> Path:
    if name.endswith(".toml"):
        path = Path(name).absolute()
        if not path.is_file():
            raise CardError(f"no card {name}")
        return path
    known = _index(kind)
    if name not in known:
        raise CardError(f"no {kind[:-1]} {name!r}{did_you_mean(name, known)}")
    return known[name]


def shipped_folder(kind: Literal["models", "protocols", "data"]) -> Path:
    """The folder of what the package brings of a kind: a wheel carries it inside; in a checkout it lies beside."""
    package = Path(__file__).parent
    bundled = package / "_cards" / kind
    return bundled if bundled.is_dir() else package.parent / kind


def _index(kind: Literal["models", "protocols"]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in [shipped_folder(kind), *card_folders(kind)]:
        for path in sorted(folder.glob("*.toml")):
            if path.stem in found:
                raise CardError(f"two cards are named {path.stem!r}: {found[path.stem]} and {path}")
            found[path.stem] = path
    return found


def parse(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        CardError: it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: not TOML: {error}") from error


def check_name(name: str, where: str) -> None:
    """Check that a card may have this name.

    Raises:
        CardError: it holds other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise CardError(f"{where} is {name!r}; expected letters, digits, '.', '_' and '-'")


def _check_name(name: str, path: Path) -> None:
    if name != path.stem or not _NAME.fullmatch(name):
        raise CardError(f"{path}: name is {name!r}; expected the name of the file: letters, digits, '.', '_' and '-'")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _keys(kind: type) -> list[str]:
    return [each.name for each in fields(kind)]


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        for option in args:
            try:
                return _typed(value, option, where)
            except CardError:
                continue
    elif origin is Literal:
        if value in args:
            return value
        if isinstance(value, str):
            raise CardError(f"{where} is {value!r}{did_you_mean(value, map(str, args))}")
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_typed(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _typed(item, args[1], f"{where}.{key}") for key, item in value.items()}
    elif is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, where)  # type: ignore[arg-type]
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif origin is None and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise CardError(f"{where} is {value!r}; expected {_spelled(hint)}")


def _spelled(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_spelled(option) for option in args if option is not NoneType)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, args))
    if origin is tuple:
        return "an array of " + " and ".join(dict.fromkeys(_spelled(item) for item in args if item is not Ellipsis))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    plain = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
