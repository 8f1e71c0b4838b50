"""Distances of static properties: nought at their reference, whole matrices from rows, slopes by differences."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.elastic import elastic_constants, mandel_of_cubic
from conservbench.observables.force_constants import force_constants
from conservbench.observables.phonons import frequencies, repeated
from conservbench.state import from_atoms
from conservbench.training.calibrate import value_and_slopes
from conservbench.training.static_targets import (
    density_distance,
    elastic_distance,
    force_constant_distance,
    half_mesh,
    together,
)
from conservbench.units import GIGAPASCAL

PRIMITIVE = bulk("Si", a=5.431)
CRYSTAL = repeated(PRIMITIVE, (2, 2, 2))
WEAK = StillingerWeber({"epsilon": 1.9, "lam": 25.0})
PARAMETERS = {"epsilon": 2.1, "lam": 22.0}
FREQUENCIES = np.arange(0.0, 25.0, 0.1)


def rows(model):
    return force_constants(model, "gradient", from_atoms(CRYSTAL.supercell), CRYSTAL.atoms.tolist())


def losses(model):
    """All of them, with the properties of a model for reference."""
    elastic = elastic_constants(model, "gradient", from_atoms(PRIMITIVE)) / GIGAPASCAL
    apart = (
        elastic_distance(from_atoms(PRIMITIVE), elastic),
        force_constant_distance(CRYSTAL, rows(model)),
        density_distance(CRYSTAL, rows(model), half_mesh(4), FREQUENCIES, 1.0),
    )
    return (*apart, together(*apart))


def test_they_vanish_at_their_reference_and_nowhere_else():
    for loss in losses(WEAK):
        assert loss(WEAK).item() == pytest.approx(0.0, abs=1e-9)
        assert loss(StillingerWeber()).item() > 0.1


def test_slopes_are_those_of_differences():
    for loss in losses(WEAK):
        _, slopes = value_and_slopes(StillingerWeber(), loss, PARAMETERS)
        for name, slope in slopes.items():
            step = 1e-5 * PARAMETERS[name]
            ahead, behind = (
                loss(StillingerWeber({**PARAMETERS, name: PARAMETERS[name] + sign * step})).item() for sign in (1, -1)
            )
            assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


def test_elastic_distance_is_that_of_whole_matrices():
    loss = elastic_distance(from_atoms(PRIMITIVE), mandel_of_cubic(153.21414, 56.79690, 74.83264))
    # Gangan et al., arXiv 2409.13844
    assert loss(StillingerWeber()).item() == pytest.approx(79.848, abs=1e-3)


def test_force_constant_distance_is_that_of_whole_matrices():
    everything = from_atoms(CRYSTAL.supercell)
    ours, theirs = (force_constants(model, "gradient", everything) for model in (StillingerWeber(), WEAK))
    found = force_constant_distance(CRYSTAL, rows(WEAK), 0.7)(StillingerWeber()).item()
    assert found == pytest.approx(np.hypot((ours - theirs).norm().item(), 0.7), rel=1e-10)


def test_density_distance_is_relative():
    """Four times the force constants: twice the frequencies."""
    stiff = StillingerWeber({"epsilon": 4 * 2.16826})
    modes = frequencies(rows(StillingerWeber()), CRYSTAL, half_mesh(4)).flatten().numpy()
    at = np.arange(0.0, 45.0, 0.05)
    one, two = (
        np.exp(-0.5 * ((at[:, None] - factor * modes) / 0.8) ** 2).mean(1) / (np.sqrt(2 * np.pi) * 0.8)
        for factor in (1, 2)
    )
    assert np.trapezoid(two, at) == pytest.approx(1.0, abs=1e-3)
    found = density_distance(CRYSTAL, rows(StillingerWeber()), half_mesh(4), at, 0.8)(stiff)
    assert found.item() == pytest.approx(np.linalg.norm(two - one) / np.linalg.norm(one), rel=1e-9)


def test_a_sum_is_the_sum():
    *apart, total = losses(WEAK)
    assert total(StillingerWeber()).item() == pytest.approx(sum(loss(StillingerWeber()).item() for loss in apart))
    assert torch.is_tensor(total(WEAK))


def test_a_mesh_holds_one_of_each_couple_and_no_origin():
    mesh = half_mesh(4)
    assert mesh.shape == (32, 3)
    both = np.concatenate([mesh, -mesh])
    assert len(np.unique(both.round(9), axis=0)) == 64
    np.testing.assert_allclose(both.mean(0), 0.0, atol=1e-12)
    assert np.abs(mesh).min() == pytest.approx(0.125)
    with pytest.raises(ValueError, match="even"):
        half_mesh(3)
