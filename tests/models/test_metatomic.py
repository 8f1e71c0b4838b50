"""Exported metatomic models: the numbers of metatomic's own calculator, exact derivatives, units, clear refusals."""

# TorchScript and metatomic compare annotations with those of typing
# ruff: noqa: UP006, UP035, UP045

import hashlib
import sys
from typing import Dict, List, Optional

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)
from scipy.stats import ttest_rel

from conservbench.cards import CardError, find_model
from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.load import load_model
from conservbench.models.metatomic import MetatomicModel, Outputs, find_outputs, read_exported
from conservbench.observables.jacobian import difference_products, probe_terms, products, rademacher
from conservbench.observables.symmetry import deviation, rms, rotated
from conservbench.state import from_atoms, select
from conservbench.systems import find_system
from conservbench.testing import check_model

KJ_PER_MOL = 0.010364269656262175
"""eV, CODATA 2018."""


class Pairs(torch.nn.Module):
    """E = sum over pairs of (1 - r)^3 kJ/mol and f_i = its number of neighbours along x in kJ/mol/nm, r in nm."""

    def __init__(self, cutoff: float, full: bool, force: str, suffix: str):
        super().__init__()
        self.options = NeighborListOptions(cutoff=cutoff, full_list=full, strict=True)
        self.share = 0.5 if full else 1.0
        self.force = force
        self.suffix = suffix

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        energies: List[torch.Tensor] = []
        forces: List[torch.Tensor] = []
        rows: List[torch.Tensor] = []
        for index, system in enumerate(systems):
            pairs = system.get_neighbor_list(self.options)
            lengths = pairs.values.square().sum(dim=(1, 2)).sqrt()
            energies.append(self.share * ((1.0 - lengths) ** 3).sum())
            pull = torch.zeros((len(system), 3), dtype=lengths.dtype)
            first = pairs.samples.column("first_atom").to(torch.long)
            second = pairs.samples.column("second_atom").to(torch.long)
            one = torch.full((len(first),), self.share, dtype=lengths.dtype)
            pull[:, 0] = pull[:, 0].index_add(0, first, one).index_add(0, second, one)
            forces.append(pull)
            atoms = torch.arange(len(system), dtype=torch.int32)
            rows.append(torch.stack([torch.full_like(atoms, index), atoms], dim=1))
        said: Dict[str, TensorMap] = {}
        key = Labels(["_"], torch.tensor([[0]], dtype=torch.int32))
        nothing: List[Labels] = []
        if "energy" + self.suffix in outputs:
            block = TensorBlock(
                torch.stack(energies)[:, None],
                Labels(["system"], torch.arange(len(systems), dtype=torch.int32)[:, None]),
                nothing,
                Labels(["energy"], torch.tensor([[0]], dtype=torch.int32)),
            )
            said["energy" + self.suffix] = TensorMap(key, [block])
        if self.force + self.suffix in outputs:
            # last atom first: an order that metatomic allows
            block = TensorBlock(
                torch.cat(forces).flip(0)[:, :, None],
                Labels(["system", "atom"], torch.cat(rows).flip(0)),
                [Labels(["xyz"], torch.tensor([[0], [1], [2]], dtype=torch.int32))],
                Labels([self.force], torch.tensor([[0]], dtype=torch.int32)),
            )
            said[self.force + self.suffix] = TensorMap(key, [block])
        return said


def export(
    path,
    *,
    names=("energy", "non_conservative_force"),
    full=True,
    suffix="",
    types=(6, 14),
    devices=("cpu",),
    force_unit="kJ/mol/nm",
    length_unit="nm",
):
    """Write the pair model with these outputs, in nm and kJ/mol."""
    units = {"energy": "kJ/mol", "non_conservative_force": force_unit, "non_conservative_forces": force_unit}
    outputs = {
        name + suffix: ModelOutput(unit=units[name], sample_kind="system" if name == "energy" else "atom")
        for name in names
    }
    force = next((name for name in names if name != "energy"), "non_conservative_force")
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=list(types),
        interaction_range=0.4,
        length_unit=length_unit,
        supported_devices=list(devices),
        dtype="float64",
    )
    AtomisticModel(Pairs(0.4, full, force, suffix).eval(), ModelMetadata(name="pairs"), capabilities).save(str(path))
    return path


def write_card(path, checkpoint, *, scheme="direct", digest=True, extra=""):
    sha256 = f'sha256 = "{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}"\n' if digest else ""
    path.write_text(
        f'name = "{path.stem}"\nversion = 1\ntitle = "exported"\nloader = "metatomic"\nscheme = "{scheme}"\n'
        f'checkpoint = "{checkpoint.name}"\n{sha256}dtype = "float32"\n{extra}',
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture(scope="session")
def pet(tmp_path_factory):
    """A small network that was never trained, exported."""
    pytest.importorskip("metatrain.pet", reason="metatrain is not installed (extra: metatrain)")
    from metatrain.pet.model import PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info, get_generic_target_info

    hypers = get_default_hypers("pet")["model"]
    hypers |= {
        "cutoff": 4.0,
        "cutoff_width": 1.0,
        "d_pet": 8,
        "d_node": 8,
        "d_head": 8,
        "d_feedforward": 8,
        "num_heads": 2,
    }
    hypers |= {"num_attention_layers": 1, "num_gnn_layers": 2}
    vector = {"quantity": "", "unit": "eV/angstrom", "type": {"cartesian": {"rank": 1}}, "num_subtargets": 1}
    targets = {
        "energy": get_energy_target_info("energy", {"quantity": "energy", "unit": "eV"}),
        "non_conservative_force": get_generic_target_info("force", {**vector, "sample_kind": "atom"}),
    }
    torch.manual_seed(1)
    network = PET(hypers, DatasetInfo(length_unit="angstrom", atomic_types=[6, 14], targets=targets))
    path = tmp_path_factory.mktemp("pet") / "pet.pt"
    network.export().save(str(path))
    return path


@pytest.fixture(scope="session")
def model(pet):
    return MetatomicModel(read_exported(pet).to(torch.float64))


@pytest.fixture(scope="session")
def frames():
    """A crystal in which atoms see several images of each other, a smaller one, and a molecule in vacuum."""
    carbide = bulk("SiC", "zincblende", a=4.36, cubic=True)
    silicon = bulk("Si", "diamond", a=5.43)
    cluster = Atoms("SiCSiC2", positions=molecule("C2H6").positions[:5] * 1.5, cell=[9.0, 9.0, 9.0], pbc=False)
    for seed, atoms in enumerate((carbide, silicon, cluster)):
        atoms.rattle(0.1, seed=seed)
    return [carbide, silicon, cluster]


@pytest.fixture(scope="session")
def state(frames):
    return from_atoms(frames)


CHANNELS = ("gradient", "direct")


def test_agrees_with_metatomics_own_calculator(pet, frames):
    from metatomic_ase import MetatomicCalculator

    model = MetatomicModel(read_exported(pet))
    said = model.evaluate(from_atoms(frames), forces=CHANNELS)
    stress = model.evaluate(from_atoms(frames[:2]), stress=True).stress
    ends = np.cumsum([len(atoms) for atoms in frames])
    derived, direct = MetatomicCalculator(pet), MetatomicCalculator(pet, non_conservative="forces")
    for index, (atoms, stop) in enumerate(zip(frames, ends, strict=True)):
        mine = slice(stop - len(atoms), stop)
        asked = atoms.copy()
        asked.calc = derived
        assert said.energy[index].item() == pytest.approx(asked.get_potential_energy(), rel=1e-6, abs=1e-5)
        np.testing.assert_allclose(said.forces["gradient"][mine], asked.get_forces(), atol=1e-5)
        if atoms.pbc.all():
            np.testing.assert_allclose(stress[index], asked.get_stress(voigt=False), atol=1e-6)
        asked.calc = direct
        np.testing.assert_allclose(said.forces["direct"][mine], asked.get_forces(), atol=1e-5)
    assert said.forces["gradient"].abs().max() > 0.01
    assert said.forces["direct"].abs().max() > 0.01


def test_gradient_forces_equal_finite_differences(model, state):
    forces = model.evaluate(state, forces=("gradient",)).forces["gradient"]
    step = 1e-4
    for atom, axis in ((0, 0), (9, 2), (12, 1)):
        energies = []
        for sign in (1, -1):
            positions = state.positions.clone()
            positions[atom, axis] += sign * step
            energies.append(model.evaluate(state.replace(positions=positions)).energy.sum())
        slope = (energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis].item() == pytest.approx(-slope.item(), abs=1e-6)


def test_stress_equals_finite_strain(model, frames):
    state = from_atoms(frames[:2])
    stress = model.evaluate(state, stress=True).stress
    step = 1e-4
    for a, b in ((0, 0), (0, 1), (2, 1)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            energies.append(
                model.evaluate(state.replace(positions=state.positions @ strain, cell=state.cell @ strain)).energy
            )
        slope = (energies[0] - energies[1]) / (2 * step) / state.volume
        torch.testing.assert_close(stress[:, a, b], slope, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("channel", CHANNELS)
def test_jacobian_products_by_autograd_equal_differences(model, frames, channel):
    """Two derivatives through TorchScript, which fused attention does not have."""
    state = from_atoms(frames[0])
    probes = rademacher([np.random.SeedSequence(seed) for seed in range(3)], state.n_atoms)
    forward, reverse = products(model, channel, state, probes, atoms_per_batch=16)
    expected = difference_products(model, channel, state, probes, 1e-5, atoms_per_batch=16)
    torch.testing.assert_close(forward, expected, rtol=1e-4, atol=1e-6)
    asymmetry = probe_terms(forward, reverse).asymmetry
    assert asymmetry < 1e-12 if channel == "gradient" else asymmetry > 0.01


def test_an_energy_conserves_without_knowing_rotations(model, frames):
    """Symmetry has to be learned, which an untrained network has not; a gradient conserves from the start."""
    state = from_atoms(frames[0])
    probes = rademacher([np.random.SeedSequence(7)], state.n_atoms)
    assert probe_terms(*products(model, "gradient", state, probes, atoms_per_batch=8)).asymmetry < 1e-12
    forces = model.evaluate(state, forces=("gradient",)).forces["gradient"]
    turned, matrix = rotated(state, np.random.default_rng(7))
    assert deviation(model, "gradient", turned, forces @ matrix) > 0.01 * rms(forces)


def learned(name, scheme):
    """Relative rotation error and lambda of a shipped network on the eight snapshots of ethanol."""
    system = find_system("ethanol")
    model = load_model(find_model(f"{name}-{scheme}"), system)
    errors, asymmetries = [], []
    for seed, atoms in enumerate(system.snapshots):
        state = from_atoms(atoms)
        forces = model.evaluate(state, forces=(scheme,)).forces[scheme]
        random = np.random.default_rng(seed)
        turns = [rotated(state, random) for _ in range(8)]
        errors.append(
            np.mean([deviation(model, scheme, turned, forces @ matrix) for turned, matrix in turns]) / rms(forces)
        )
        probes = rademacher([np.random.SeedSequence([7, number]) for number in range(16)], state.n_atoms)
        asymmetries.append(probe_terms(*products(model, scheme, state, probes, atoms_per_batch=64)).asymmetry)
    return np.array(errors), np.array(asymmetries)


def test_turned_structures_teach_an_energy_rotations():
    """Two networks alike but for random rotations in training; over snapshots, chance passes once in a thousand."""
    turned, still = learned("ethanol-pet", "gradient"), learned("ethanol-pet-still", "gradient")
    assert ttest_rel(turned[0], still[0], alternative="less").pvalue < 1e-3
    # single precision, before and after
    assert max(turned[1].max(), still[1].max()) < 1e-6


def test_turned_structures_teach_direct_forces_no_conservation():
    """As above: what rotations take off lambda is below a seventh of it, at a confidence of 99 %."""
    turned, still = learned("ethanol-pet", "direct")[1], learned("ethanol-pet-still", "direct")[1]
    gain = ttest_rel(still, turned, alternative="less").confidence_interval(0.99)
    assert gain.high < still.mean() / 7
    assert min(turned.min(), still.min()) > 0.02


def test_a_batch_is_answered_as_each_system_alone(model, state):
    whole = model.evaluate(state, forces=CHANNELS)
    for index in range(3):
        alone = model.evaluate(select(state, [index]), forces=CHANNELS)
        torch.testing.assert_close(alone.energy[0], whole.energy[index])
        for channel in CHANNELS:
            torch.testing.assert_close(alone.forces[channel], whole.forces[channel][state.system == index])


def test_both_channels_come_from_one_forward(model, state, monkeypatch):
    calls = []
    original = model.exported.forward
    monkeypatch.setattr(model.exported, "forward", lambda *a, **k: calls.append(1) or original(*a, **k))
    model.evaluate(state, forces=CHANNELS)
    assert calls == [1]


def test_atoms_may_be_many_cells_away(model, frames):
    state = from_atoms(frames[0])
    places = state.positions.clone()
    places[1] += state.cell[0, 0] * 3 - state.cell[0, 2]
    here, there = (model.evaluate(each, forces=CHANNELS) for each in (state, state.replace(positions=places)))
    for channel in CHANNELS:
        torch.testing.assert_close(there.forces[channel], here.forces[channel], rtol=1e-6, atol=1e-7)


def test_the_cell_of_a_molecule_is_not_read(model, frames):
    bare = frames[2].copy()
    bare.set_cell(None)
    boxed, free = (model.evaluate(from_atoms(each), forces=CHANNELS) for each in (frames[2], bare))
    for channel in CHANNELS:
        assert torch.equal(boxed.forces[channel], free.forces[channel])


def test_a_slab_has_images_only_where_it_is_periodic(model):
    slab = bulk("Si", "diamond", a=5.43, cubic=True)
    slab.pbc = (True, True, False)
    wide = slab.copy()
    wide.set_cell([5.43, 5.43, 40.0])
    wide.pbc = True
    one, other = (model.evaluate(from_atoms(each), forces=("gradient",)).forces["gradient"] for each in (slab, wide))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_precision_can_be_raised_but_not_the_answer(pet, model, state):
    single = MetatomicModel(read_exported(pet)).evaluate(state, forces=CHANNELS)
    double = model.evaluate(state, forces=CHANNELS)
    for channel in CHANNELS:
        change = (single.forces[channel] - double.forces[channel]).abs().max()
        assert 0 < change < 1e-4


@pytest.mark.parametrize("scheme", ["gradient", "direct"])
def test_keeps_to_the_interface(pet, tmp_path, scheme):
    link = tmp_path / "pet.pt"
    link.write_bytes(pet.read_bytes())
    card = write_card(tmp_path / f"pet-{scheme}.toml", link, scheme=scheme)
    said = check_model(card, bulk("SiC", "zincblende", a=4.36, cubic=True))
    assert not any(said.values()), said


@pytest.mark.parametrize("full", [True, False])
def test_units_are_those_that_the_model_declares(tmp_path, full):
    """Two atoms at 2 Å, in nm and kJ/mol: 0.8^3 kJ/mol, pushed apart by 3 0.8^2 kJ/mol/nm."""
    model = MetatomicModel(read_exported(export(tmp_path / "pairs.pt", full=full)))
    pair = from_atoms(Atoms("SiC", positions=[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    said = model.evaluate(pair, forces=CHANNELS)
    assert said.energy.item() == pytest.approx(0.8**3 * KJ_PER_MOL, rel=1e-7)
    push = 3 * 0.8**2 * KJ_PER_MOL / 10
    np.testing.assert_allclose(said.forces["gradient"], [[0, -push, 0], [0, push, 0]], rtol=1e-7, atol=1e-15)


def test_a_force_without_a_unit_has_that_of_the_energy_over_that_of_lengths(tmp_path):
    row = from_atoms(Atoms("SiCC", positions=[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 4.0, 0.0]]))
    files = (export(tmp_path / "said.pt"), export(tmp_path / "unsaid.pt", force_unit=""))
    said, unsaid = (MetatomicModel(read_exported(file)).evaluate(row, forces=("direct",)) for file in files)
    np.testing.assert_allclose(said.forces["direct"], unsaid.forces["direct"], rtol=1e-12)
    assert said.forces["direct"].abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore:No length unit was provided")
def test_lengths_without_a_unit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not say its unit of length"):
        MetatomicModel(read_exported(export(tmp_path / "pairs.pt", length_unit="")))


@pytest.mark.parametrize("full", [True, False])
def test_direct_forces_lose_their_net_force_and_keep_their_atoms(tmp_path, full):
    """In a row of three atoms the middle one has two neighbours: 2 - 4/3 kJ/mol/nm more than the mean."""
    model = MetatomicModel(read_exported(export(tmp_path / "pairs.pt", full=full)))
    row = Atoms("SiCSi", positions=[[0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 6.0, 0.0]])
    pair = Atoms("C2", positions=[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    forces = model.evaluate(from_atoms([row, pair]), forces=("direct",)).forces["direct"]
    expected = np.zeros((5, 3))
    expected[:3, 0] = np.array([-1, 2, -1]) / 3 * KJ_PER_MOL / 10
    np.testing.assert_allclose(forces, expected, rtol=1e-7, atol=1e-15)


def test_a_half_list_has_an_atom_and_its_own_image_once(tmp_path):
    """One atom in a cube of 3 Å has 6 neighbours within 4 Å: 3 pairs of 0.7^3 kJ/mol."""
    lonely = from_atoms(Atoms("Si", cell=[3.0, 3.0, 3.0], pbc=True))
    energies = [
        MetatomicModel(read_exported(export(tmp_path / "pairs.pt", full=full))).evaluate(lonely).energy.item()
        for full in (True, False)
    ]
    assert energies == pytest.approx([3 * 0.7**3 * KJ_PER_MOL] * 2, rel=1e-7)


def test_a_model_with_energy_alone_says_so(tmp_path):
    model = MetatomicModel(read_exported(export(tmp_path / "energy.pt", names=("energy",))))
    assert model.channels == ("gradient",)
    with pytest.raises(UnsupportedError, match="no direct forces"):
        model.evaluate(from_atoms(Atoms("Si")), forces=("direct",))


@pytest.mark.parametrize("name", ["non_conservative_force", "non_conservative_forces"])
@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_a_model_with_direct_forces_alone_says_so(tmp_path, name):
    model = MetatomicModel(read_exported(export(tmp_path / "direct.pt", names=(name,))))
    pair = from_atoms(Atoms("SiC", positions=[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], cell=[20.0] * 3, pbc=True))
    assert model.channels == ("direct",)
    assert model.evaluate(pair).energy is None
    assert model.evaluate(pair, forces=("direct",)).forces["direct"].shape == (2, 3)
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        model.evaluate(pair, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="no stress"):
        model.evaluate(pair, stress=True)


def test_an_unknown_element_is_refused(tmp_path):
    model = MetatomicModel(read_exported(export(tmp_path / "pairs.pt")))
    with pytest.raises(UnsupportedError, match="does not know O"):
        model.evaluate(from_atoms(molecule("CO2")))


def test_a_variant_is_read_where_the_card_names_it(tmp_path):
    path = export(tmp_path / "pbe.pt", suffix="/pbe")
    card = find_model(write_card(tmp_path / "pbe.toml", path, extra='[options]\nvariant = "pbe"\n'))
    model = load_model(card, find_system("si-64"))
    assert model.outputs == Outputs("energy/pbe", "non_conservative_force/pbe")
    assert model.evaluate(from_atoms(Atoms("Si"))).energy.item() == 0.0


def test_outputs_are_found_by_variant():
    both = {"energy", "energy/pbe", "non_conservative_forces/pbe", "feature"}
    assert find_outputs(both) == Outputs("energy", None)
    assert find_outputs(both, "pbe") == Outputs("energy/pbe", "non_conservative_forces/pbe")
    with pytest.raises(ValueError, match="no variant 'pbd'; did you mean 'pbe'"):
        find_outputs(both, "pbd")
    with pytest.raises(ValueError, match="no output without a variant; expected one of: pbe, r2scan"):
        find_outputs({"energy/pbe", "energy/r2scan"})
    with pytest.raises(ValueError, match="the model has no variants: leave out variant = 'pbe'"):
        find_outputs({"energy", "feature", "feature/pbe"}, "pbe")
    with pytest.raises(ValueError, match="neither 'energy' nor 'non_conservative_force'; it has: feature"):
        find_outputs({"feature"})


def test_a_checkpoint_is_opened_only_by_checksum_or_trust(tmp_path):
    path, system = export(tmp_path / "pairs.pt"), find_system("si-64")
    bare = find_model(write_card(tmp_path / "bare.toml", path, digest=False))
    with pytest.raises(CardError, match="runs code of its author: state its sha256, or trust = true"):
        load_model(bare, system)
    trusted = find_model(write_card(tmp_path / "ok.toml", path, digest=False, extra="[options]\ntrust = true\n"))
    assert load_model(trusted, system).channels == CHANNELS
    stated = write_card(tmp_path / "stated.toml", path)
    assert load_model(find_model(stated), system).channels == CHANNELS
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CardError, match="expected"):
        load_model(find_model(stated), system)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "not.pt"
    path.write_bytes(b"not a model")
    with pytest.raises(CardError, match="no metatomic model that can be opened here"):
        load_model(find_model(write_card(tmp_path / "not.toml", path)), find_system("si-64"))


def test_a_device_that_the_model_does_not_name_is_refused(tmp_path):
    card = find_model(write_card(tmp_path / "pairs.toml", export(tmp_path / "pairs.pt")))
    with pytest.raises(CardError, match="does not run on 'cuda'; expected one of: cpu"):
        load_model(card, find_system("si-64"), device="cuda")


def test_a_metatomic_that_cannot_be_imported_is_told(tmp_path, monkeypatch):
    path = export(tmp_path / "pairs.pt")
    card = find_model(write_card(tmp_path / "pairs.toml", path))
    monkeypatch.setitem(sys.modules, "metatomic.torch", None)
    with pytest.raises(CardError, match=r"cannot import metatomic beside torch 2\."):
        load_model(card, find_system("si-64"))


def test_an_output_of_another_shape_is_no_prediction(tmp_path, monkeypatch):
    model = MetatomicModel(read_exported(export(tmp_path / "pairs.pt")))
    original = model.exported.forward

    def one_energy(systems, options, check_consistency):
        return original(systems[:1], options, check_consistency)

    monkeypatch.setattr(model.exported, "forward", one_energy)
    with pytest.raises(InvalidPredictionError, match=r"energy: shape is \(1, 1\), expected \(2, 1\)"):
        model.evaluate(from_atoms([Atoms("Si"), Atoms("C")]))
