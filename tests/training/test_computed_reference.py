"""A computed reference of a hexagonal crystal against exact derivatives, and that nothing is computed twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models.base import Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.lattice import crystal_at_rest
from conservbench.outcome import Outcome
from conservbench.protocols.fidelity.crystal import _lengths, _primitive, is_crystal_of, measure_crystal
from conservbench.protocols.fidelity.judge import OF_CRYSTAL, OF_HEXAGONAL, hexagonal_constants, of_crystal
from conservbench.references import find_reference
from conservbench.references.reference import from_table
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.training import computed_reference as making

TASK = making.Task(
    name="si-sw",
    title="Silicon of the wurtzite structure, Stillinger-Weber",
    citation="Stillinger and Weber",
    start=lambda: bulk("SiSi", "wurtzite", a=3.86, c=6.2, u=0.37),
    repeats=2,
    path="GMKGA",
    calculator=None,
)


class Computing:
    """Stillinger-Weber as a calculator, which counts what is asked of it."""

    def __init__(self):
        self.model, self.calls = StillingerWeber(), 0

    def get_forces(self, atoms):
        self.calls += 1
        return self.model.evaluate(from_atoms(atoms), forces=("gradient",)).forces["gradient"].numpy()

    def get_stress(self, atoms):
        matrix = self.model.evaluate(from_atoms(atoms), stress=True).stress[0].numpy()
        return matrix[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def get_potential_energy(self, atoms, force_consistent=False):
        return float(self.model.evaluate(from_atoms(atoms)).energy)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # so small that they give derivatives
        patch.setattr(making, "STRAINS", (5e-4, 1e-3))
        patch.setattr(making, "MOVES", (0.004, 0.005))
        folder = tmp_path_factory.mktemp("kept")
        first, second = Computing(), Computing()
        made = making.compute(TASK, making.Remembered(first, folder))
        assert first.calls == len(list(folder.glob("*.json")))
        assert making.compute(TASK, making.Remembered(second, folder)) == made
        assert second.calls == 0
        return made


def test_the_potential_does_not_miss_its_own_reference(table):
    reference = from_table(table)
    sites = TASK.start() * 2
    data = measure_crystal(StillingerWeber(), Scheme("gradient"), sites, reference)
    found = {finding.metric: finding for finding in of_crystal(data)}
    # no atom is above one of another element: it has no height
    assert set(found) == {*OF_CRYSTAL, *OF_HEXAGONAL} - {"internal_error"}
    for metric in ("lattice_error", "lattice_c_error"):
        assert found[metric].interval.value == pytest.approx(0.0, abs=1e-5)
    assert found["elastic_error"].interval.value == pytest.approx(0.0, abs=0.1)
    assert found["phonon_error"].interval.value == pytest.approx(0.0, abs=0.005)
    expected = dict(zip(("c11", "c12", "c13", "c33", "c44"), table["elastic"], strict=True))
    for metric, value in expected.items():
        assert found[metric].interval.value == pytest.approx(value, abs=0.05)
    assert found["elastic_stability"].interval.value > 0
    assert data.attrs["family"] == "hexagonal"
    assert table["force_constants"]["remainder"] == pytest.approx(0.0, abs=1e-3)
    constants = hexagonal_constants(data.reference_elastic_constants)
    assert constants == pytest.approx([expected[key] for key in ("c11", "c12", "c44", "c13", "c33")])


def test_what_is_free_by_symmetry_may_be_anything(table):
    reference = from_table(table)
    other = bulk("SiSi", "wurtzite", a=4.0, c=6.1, u=0.36) * 2
    other = other[np.random.default_rng(0).permutation(len(other))]
    other.translate([0.3, 0.1, -0.4])
    assert is_crystal_of(other, reference)
    for broken in (other[:-1], find_system("si-64").sites, bulk("SiSi", "wurtzite", a=4.0, c=9.0, u=0.36) * 2):
        assert not is_crystal_of(broken, reference)
    other.positions[3] += 0.05
    assert not is_crystal_of(other, reference)


def test_a_part_that_is_missing_is_missing_for_all_lengths(table):
    class Unstressed(StillingerWeber):
        """Without a stress."""

        differentiable = False

        def evaluate(self, state, **rest):
            return replace(super().evaluate(state, **{**rest, "stress": False}), stress=None)

    data = measure_crystal(Unstressed(), Scheme("gradient"), TASK.start() * 2, from_table(table))
    found = {finding.metric: finding for finding in of_crystal(data)}
    for metric in ("lattice_error", "lattice_c_error", "c13", "c33", "elastic_error"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.UNSUPPORTED)
    # at the lattice constants of the reference, which are its own
    assert found["phonon_error"].interval.value == pytest.approx(0.0, abs=0.01)


def test_the_height_of_nitrogen_over_gallium_is_an_error_of_its_own():
    reference = find_reference("gan-gfn2")

    class Springs:
        """Springs to the sites of a crystal of another height, whose stress is that of its cell."""

        channels, elements, differentiable, labelled = ("gradient",), None, False, False
        device = torch.device("cpu")

        def __init__(self, height):
            self.height = height

        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            perfect = bulk("GaN", "wurtzite", a=3.2, c=5.2, u=self.height)
            strain = np.linalg.inv(perfect.cell.array) @ state.cell[0].numpy() - np.eye(3)
            moved = (state.positions[1] - state.positions[0])[2] / state.cell[0, 2, 2]
            off = torch.tensor([0, 0, 1.0]) * (moved - (1 - self.height) % 0.5)
            pulls = torch.stack([off, -off, off, -off]).double()
            return Prediction(state.positions.new_zeros(1), dict.fromkeys(forces, pulls), torch.as_tensor(strain)[None])

    found = _lengths(crystal_at_rest(Springs(0.38), "gradient", _primitive(reference)), reference)
    assert found == pytest.approx(
        {"lattice_constant": 3.2, "lattice_constant_c": 5.2, "internal_parameter": 0.38}, rel=1e-6
    )
