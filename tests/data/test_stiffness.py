"""Stiffness of bonds: springs of a known constant, real bonds, and what says nothing."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_all
from conservbench.data.stiffness import badger, bond_stiffness


def labelled(atoms, forces):
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    return atoms


def diatomics(constant, lengths, symbols="N2"):
    """A molecule of a spring (eV/Å^2), turned at random in each frame."""
    frames = []
    for seed, length in enumerate(lengths):
        way = np.random.default_rng(seed).normal(size=3)
        way /= np.linalg.norm(way)
        pull = constant * (length - 1.1) * way
        frames.append(labelled(Atoms(symbols, [[0, 0, 0], length * way]), [pull, -pull]))
    return frames


def test_the_rule_gives_force_constants_of_molecules():
    # experiment, mdyn/Å: H2 5.8, N2 22.9, HCl 5.2, Cl2 3.2; Huber and Herzberg (1979)
    lengths = np.array([0.741, 1.098, 1.275, 1.988])
    said = badger(np.array([1, 7, 1, 17]), np.array([1, 7, 17, 17]), lengths) / 6.2415
    np.testing.assert_allclose(said, [5.8, 22.9, 5.2, 3.2], rtol=0.45)


def test_a_spring_has_its_constant():
    lengths = np.random.default_rng(0).uniform(1.095, 1.105, 40)
    expected = badger(np.array([7]), np.array([7]), np.array([1.1]))[0]
    assert bond_stiffness(diatomics(143.0, lengths)) == pytest.approx(143.0 / expected, rel=0.02)


def test_a_spring_through_the_wall_of_a_cell_is_the_same():
    lengths = np.random.default_rng(0).uniform(1.09, 1.11, 40)
    free, boxed = diatomics(100.0, lengths), diatomics(100.0, lengths)
    for atoms in boxed:
        atoms.set_cell([6.0, 6.0, 6.0])
        atoms.pbc = True
        atoms.wrap()
    assert bond_stiffness(boxed) == pytest.approx(bond_stiffness(free))


@pytest.mark.parametrize("metal", ["Al", "Cu", "Au"])
def test_metals_are_as_stiff_as_their_lengths_let_expect(metal):
    frames = []
    for seed in range(4):
        atoms = bulk(metal, cubic=True) * (2, 2, 2)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        frames.append(labelled(atoms, atoms.get_forces()))
    assert 0.35 < bond_stiffness(frames) < 1.5


def test_molecules_are_as_stiff_as_their_lengths_let_expect():
    assert 0.7 < bond_stiffness(load_all(find_data_set("ethanol-xtb"))[::6]) < 1.4


def test_what_says_nothing_is_not_judged():
    lengths = np.random.default_rng(0).uniform(1.0, 1.2, 40)
    # no frames, too few, no bond, forces that do not depend on lengths, and none at all
    assert bond_stiffness([]) is None
    assert bond_stiffness(diatomics(0.1, lengths[:3])) is None
    assert bond_stiffness(diatomics(0.1, 4.0 + lengths)) is None
    assert bond_stiffness(diatomics(0.0, lengths)) is None
    rng = np.random.default_rng(1)
    assert bond_stiffness([labelled(atoms, rng.normal(size=(2, 3))) for atoms in diatomics(0.0, lengths)]) is None
    # another cell each: forces vanish by symmetry, though lengths change
    scan = [labelled(bulk("Si", a=5.3 + 0.01 * index), np.zeros((2, 3))) for index in range(20)]
    assert bond_stiffness(scan) is None
