"""The named systems are what they say: silicon, crystalline, with a vacancy and liquid, and silicon carbide."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from ase.build import bulk

from conservbench.cards import find_model
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.state import from_atoms
from conservbench.systems import find_system, list_systems, sample
from conservbench.units import BOLTZMANN

# kelvin and Å^3 an atom, those of public ab initio dynamics
MELTS = {"si-melt-64": (2000, 20.02), "si-melt-216": (2000, 20.02), "si-hot-64": (2530, 20.44)}
MELTS |= {"si-hotter-64": (3374, 20.44)}
WARM = {"si-warm-64": (1500, 20.02), "si-cool-64": (843, 20.44)}
NAMES = ["si-64", "si-liquid-64", "si-vacancy-63", "sic-64", *MELTS, *WARM]


def distances(system):
    """(n_snapshots, n_pairs) nearest-image distances in Å."""
    upper = np.triu_indices(len(system.sites), 1)
    return np.array([snapshot.get_all_distances(mic=True)[upper] for snapshot in system.snapshots])


def displacements(system):
    moved = np.array([snapshot.positions - system.sites.positions for snapshot in system.snapshots])
    return moved - moved.mean(1, keepdims=True)


def thermal_energy(system, model):
    """(n_snapshots,) potential energy an atom above that of the sites, eV."""
    energy = model.evaluate(from_atoms(system.snapshots)).energy.numpy()
    return (energy - model.evaluate(from_atoms(system.sites)).energy.item()) / len(system.sites)


def test_list():
    titles = list_systems()
    assert list(titles) == sorted(titles)
    assert set(NAMES) <= set(titles)


def test_a_wrong_name_is_told_the_near_one():
    with pytest.raises(ValueError, match="no system 'si-46'; did you mean 'si-64'"):
        find_system("si-46")


@pytest.mark.parametrize("name", NAMES)
def test_every_system_is_complete(name):
    system = find_system(name)
    assert system.name == name
    assert system.version == 1
    assert system.title == list_systems()[name]
    assert ("10.1103/PhysRevB.31.5262" if name.startswith("si-") else "3C-SiC") in system.citation
    assert f"systems.sample {name}" in system.provenance
    assert len(system.snapshots) == 8
    for atoms in (system.sites, *system.snapshots):
        assert len(atoms) == int(name.rpartition("-")[2])
        assert set(atoms.numbers.tolist()) == ({14} if name.startswith("si-") else {6, 14})
        assert atoms.pbc.all()
        np.testing.assert_array_equal(atoms.cell.array, system.sites.cell.array)
        assert not atoms.get_momenta().any()


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name):
    assert len(files("conservbench.systems").joinpath(f"{name}.json").read_bytes()) < 70_000


def test_every_call_makes_its_own_structures():
    find_system("si-64").sites.positions[:] = 0
    assert find_system("si-64").sites.positions.any()


def test_crystal_sites_are_diamond():
    expected = bulk("Si", "diamond", a=5.431, cubic=True) * (2, 2, 2)
    sites = find_system("si-64").sites
    np.testing.assert_allclose(sites.positions, expected.positions, atol=1e-12)
    np.testing.assert_allclose(sites.cell.array, expected.cell.array)


def test_crystal_snapshots_are_thermal():
    system = find_system("si-64")
    assert system.temperature == 1000
    moved = displacements(system)
    # every atom is nearest to its own site; a neighbour is at 2.35 Å
    assert np.linalg.norm(moved, axis=-1).max() < 1.0
    energy = thermal_energy(system, StillingerWeber())
    # equipartition, 3/2 k_B T an atom; the energy of 64 atoms scatters by sqrt(2/189) = 10 %, a mean of 8 by 3.6 %, so
    # 15 % is four standard errors and leaves room for anharmonicity of a few per cent
    assert energy.mean() == pytest.approx(1.5 * BOLTZMANN * 1000 * 63 / 64, rel=0.15)
    assert energy.std() / energy.mean() < 0.3


def test_crystal_snapshots_are_decorrelated():
    moved = displacements(find_system("si-64")).reshape(8, -1)
    overlap = np.corrcoef(moved)[np.triu_indices(8, 1)]
    # soft modes keep a small overlap; neighbours in time are no more alike than any others
    assert np.abs(overlap).max() < 0.35


def test_vacancy_is_diamond_without_an_atom():
    crystal, vacancy = find_system("si-64").sites, find_system("si-vacancy-63").sites
    np.testing.assert_array_equal(vacancy.positions, crystal.positions[1:])
    np.testing.assert_array_equal(vacancy.cell.array, crystal.cell.array)


def test_vacancy_stays_where_it_is():
    system = find_system("si-vacancy-63")
    assert system.temperature == 600
    moved = displacements(system)
    # a hop takes a neighbour 2.35 Å; the four neighbours stay 0.56 Å inside of their sites
    assert np.linalg.norm(moved, axis=-1).max() < 1.0
    hole = find_system("si-64").sites.positions[0]
    offsets = system.sites.positions - hole
    offsets -= np.round(offsets / system.sites.cell.lengths()) * system.sites.cell.lengths()
    nearest = np.argsort(np.linalg.norm(offsets, axis=1))[:4]
    inwards = -offsets[nearest] / np.linalg.norm(offsets[nearest], axis=1)[:, None]
    # 32 samples that scatter by 0.1 Å each: six standard errors
    assert (moved[:, nearest] * inwards).sum(-1).mean() == pytest.approx(0.56, abs=0.11)


def test_vacancy_snapshots_are_thermal_and_decorrelated():
    system = find_system("si-vacancy-63")
    model = StillingerWeber()
    energy = model.evaluate(from_atoms(system.snapshots)).energy.numpy()
    # the relaxed vacancy: 63 atoms of the crystal and 2.843 eV; 15 % as for the crystal
    thermal = energy + 63 * 277.53728 / 64 - 2.843
    assert (thermal / 63).mean() == pytest.approx(1.5 * BOLTZMANN * 600 * 62 / 63, rel=0.15)
    moved = displacements(system)
    overlap = np.corrcoef((moved - moved.mean(0)).reshape(8, -1))[np.triu_indices(8, 1)]
    # taking the mean of eight away leaves -1/7 between any two
    assert np.abs(overlap + 1 / 7).max() < 0.35


def test_carbide_is_zincblende():
    sites = find_system("sic-64").sites
    expected = bulk("SiC", "zincblende", a=4.36, cubic=True) * (2, 2, 2)
    np.testing.assert_allclose(sites.positions, expected.positions, atol=1e-12)
    assert sites.numbers.tolist() == expected.numbers.tolist()
    assert np.sort(sites.numbers).tolist() == [6] * 32 + [14] * 32


def test_carbide_snapshots_are_thermal_and_decorrelated():
    """Springs of 12 eV/Å^2 leave each displacement normal with a variance of k_B T / k, whatever the mass."""
    system = find_system("sic-64")
    moved = displacements(system)
    for number in (6, 14):
        mine = moved[:, system.sites.numbers == number]
        # 768 normal numbers a species: their variance scatters by 5.1 %; four sigma, false alarm 6e-5
        assert (mine**2).mean() == pytest.approx(BOLTZMANN * 600 / 12 * 63 / 64, rel=4 * np.sqrt(2 / 768))
    overlap = np.corrcoef(moved.reshape(8, -1))[np.triu_indices(8, 1)]
    # 189 independent numbers correlate by 1/sqrt(189) = 0.073; 28 pairs within 4.5 sigma, false alarm 2e-4
    assert np.abs(overlap).max() < 4.5 / np.sqrt(189)


def test_liquid_density():
    system = find_system("si-liquid-64")
    grams = 64 * 28.085 * 1.66053907e-24
    assert grams / (system.sites.get_volume() * 1e-24) == pytest.approx(2.52, abs=1e-3)
    assert system.temperature == 2000
    np.testing.assert_array_equal(system.sites.positions, system.snapshots[0].positions)


def test_liquid_is_liquid():
    system = find_system("si-liquid-64")
    pairs = distances(system)
    coordination = 2 * (pairs < 3.0).sum(1) / 64
    # crystal 4; density functional theory of the liquid at 2000 K has 5.3 within 3 Å
    assert coordination.mean() == pytest.approx(5.3, abs=0.4)
    counts, edges = np.histogram(pairs, bins=np.arange(1.8, 4.0, 0.1))
    middle = 0.5 * (edges[1:] + edges[:-1])
    # Stillinger-Weber liquid: first peak of g(r) at 2.55 Å
    assert middle[np.argmax(counts / middle**2)] == pytest.approx(2.5, abs=0.11)


def test_liquid_flows_between_snapshots():
    moved = np.array([snapshot.positions for snapshot in find_system("si-liquid-64").snapshots])
    moved -= moved.mean(1, keepdims=True)
    away = ((moved - moved[0]) ** 2).sum(-1).mean(-1)
    near, far = away[1:3].mean(), away[6:].mean()
    # snapshots are 1.5 ps apart: a diffusing liquid moves about four times as far, squared, in 6.5 steps as in 1.5
    assert near > 2.35**2
    assert 2 < far / near < 9


@pytest.mark.parametrize("name", [*MELTS, *WARM])
def test_densities_and_temperatures_are_those_of_the_reference(name):
    system = find_system(name)
    kelvin, volume = (MELTS | WARM)[name]
    assert system.temperature == kelvin
    assert system.sites.get_volume() / len(system.sites) == pytest.approx(volume, abs=0.005)


@pytest.mark.parametrize("name", MELTS)
def test_melts_are_liquid(name):
    pairs = distances(find_system(name))
    coordination = 2 * (pairs < 3.0).sum(1) / len(find_system(name).sites)
    # crystal 4 within 3 Å; the liquid of Stillinger-Weber some 5, less where it is hotter
    assert 4.3 < coordination.mean() < 5.8
    # the gap between the shells of a crystal, 2.35 and 3.84 Å, is filled: about one pair an atom
    filled = ((pairs > 2.9) & (pairs < 3.3)).sum(1) / len(find_system(name).sites)
    assert filled.mean() > 0.5


@pytest.mark.parametrize("name", WARM)
def test_warm_crystals_are_crystals_at_their_temperature(name):
    system = find_system(name)
    moved = displacements(system)
    assert np.linalg.norm(moved, axis=-1).max() < 1.2
    energy = thermal_energy(system, StillingerWeber())
    # as for the crystal at 1000 K; anharmonicity at 1500 K takes some per cent more
    assert energy.mean() == pytest.approx(1.5 * BOLTZMANN * system.temperature * 63 / 64, rel=0.2)


def test_water_has_its_density_and_its_molecules():
    system = find_system("water-64")
    grams = 64 * 18.015 * 1.66053907e-24
    assert grams / (system.sites.get_volume() * 1e-24) == pytest.approx(0.9933, abs=1e-3)
    assert system.temperature == 300
    assert len(system.snapshots) == 8
    for atoms in system.snapshots:
        assert atoms.get_chemical_symbols() == ["O", "H", "H"] * 64
        bonds = atoms.get_all_distances(mic=True)
        for oxygen in range(0, 192, 3):
            np.testing.assert_array_equal(np.sort(np.argsort(bonds[oxygen])[1:3]), [oxygen + 1, oxygen + 2])
            assert bonds[oxygen, oxygen + 1 : oxygen + 3].max() < 1.25


def test_water_is_liquid_as_measured():
    oxygens = np.array([atoms[::3].get_all_distances(mic=True) for atoms in find_system("water-64").snapshots])
    pairs = oxygens[:, *np.triu_indices(64, 1)]
    counts, edges = np.histogram(pairs, bins=np.arange(2.3, 6.0, 0.1))
    middle = 0.5 * (edges[1:] + edges[:-1])
    # first peak of g_OO of density functional theory: 2.83 Å
    assert middle[np.argmax(counts / middle**2)] == pytest.approx(2.8, abs=0.11)
    # four neighbours within 3.3 Å, give or take one: 512 molecules
    assert ((oxygens > 0) & (oxygens < 3.3)).sum(-1).mean() == pytest.approx(4.3, abs=0.6)


def test_water_snapshots_are_decorrelated():
    """The axes of molecules turn within picoseconds: they are part of the way from one snapshot to the last."""
    snapshots = find_system("water-64").snapshots
    bonds = np.array([[atoms.positions[1::3] - atoms.positions[::3]] for atoms in snapshots])[:, 0]
    bonds /= np.linalg.norm(bonds, axis=-1, keepdims=True)
    kept = (bonds[0] * bonds[1:]).sum(-1).mean(-1)
    assert kept[-1] < 0.8
    assert kept[-1] < kept[0]


def test_gallium_nitride_is_wurtzite():
    sites = find_system("gan-32").sites
    expected = bulk("GaN", "wurtzite", a=3.176, c=5.106, u=0.3756) * (2, 2, 2)
    assert sites.numbers.tolist() == expected.numbers.tolist()
    np.testing.assert_allclose(sites.positions, expected.positions, atol=1e-12)
    np.testing.assert_allclose(sites.cell.array, expected.cell.array)


def test_gallium_nitride_snapshots_are_thermal_and_decorrelated():
    system = find_system("gan-32")
    assert system.temperature == 1000
    moved = displacements(system)
    # each atom is nearest to its own site; a neighbour is at 1.95 Å
    assert np.linalg.norm(moved, axis=-1).max() < 0.9
    energy = thermal_energy(system, load_model(find_model("gan-mace-gradient"), system))
    # the energy of 31 atoms scatters by sqrt(2/93) = 15 %, a mean of 8 by 5.2 %: four standard errors
    assert energy.mean() == pytest.approx(1.5 * BOLTZMANN * 1000 * 31 / 32, rel=0.21)
    overlap = np.corrcoef(moved.reshape(8, -1))[np.triu_indices(8, 1)]
    # 93 numbers, were they independent, correlate by 0.10; soft modes keep some more
    assert np.abs(overlap).max() < 0.45


def test_lgps_has_its_tetrahedra_and_its_lithium_moves():
    system = find_system("lgps-50")
    assert system.temperature == 600
    assert system.sites.get_chemical_formula("hill") == "Ge2Li20P4S24"
    symbols = np.array(system.sites.get_chemical_symbols())
    for atoms in system.snapshots:
        bonds = atoms.get_all_distances(mic=True)[:, symbols == "S"]
        # P-S 2.05 Å, Ge-S 2.2 Å, and no fifth sulfur near
        assert ((bonds[symbols == "P"] < 2.8).sum(1) == 4).all()
        assert ((bonds[symbols == "Ge"] < 3.0).sum(1) == 4).all()
    squares = (displacements(system) ** 2).sum(-1).mean(0)
    assert squares[symbols == "Li"].mean() > 2 * squares[symbols == "P"].mean()


def test_listing_imports_no_simulation_stack():
    code = "import sys, conservbench.systems as s; s.list_systems(); print({'ase', 'torch'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_recipes_and_files_agree(name):
    recipe = sample.RECIPES[name]
    table = json.loads(files("conservbench.systems").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    assert (table["version"], table["title"], table["citation"]) == (recipe.version, recipe.title, recipe.citation)
    assert table["temperature"] == recipe.stages[-1].temperature
    np.testing.assert_allclose(table["cell"], recipe.build().cell.array, rtol=1e-12)
    assert recipe.spacing >= 0.5
    assert recipe.stages[-1].duration >= 2.0


@pytest.mark.parametrize("name", ["ethanol", "water-64", "gan-32", "lgps-50"])
def test_recipes_of_compounds_and_files_agree(name):
    recipe = sample.RECIPES[name]
    system = find_system(name)
    assert (system.version, system.title, system.citation) == (recipe.version, recipe.title, recipe.citation)
    assert system.temperature == recipe.stages[-1].temperature
    assert len(system.snapshots) == 8


def test_sampling_moves_atoms_and_keeps_the_centre(monkeypatch):
    crystal = sample.RECIPES["si-64"]
    stages = (sample.Stage(700.0, 0.3),)
    small = replace(crystal, build=lambda: bulk("Si", a=5.431, cubic=True), stages=stages, spacing=0.02)
    monkeypatch.setitem(sample.RECIPES, "small", small)
    table = sample.sample("small")
    assert table["temperature"] == 700.0
    assert len(table["snapshots"]) == 8
    moved = np.array(table["snapshots"]) - np.array(table["sites"])
    np.testing.assert_allclose(moved.mean(1), 0, atol=1e-6)
    # about 0.09 Å a component at 700 K; eight atoms scatter by tens of per cent
    assert 0.03 < np.sqrt((moved**2).mean()) < 0.25
