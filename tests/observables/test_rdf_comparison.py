"""The distance between two g(r), and the place of the first peak."""

import numpy as np
import pytest

from conservbench.observables.rdf import radial_distribution
from conservbench.observables.rdf_comparison import first_peak, rdf_distance
from conservbench.state import from_atoms
from conservbench.systems import find_system


def liquid(r, first=2.55, second=3.7):
    """Something like a liquid: a core, two peaks, and 1 beyond."""
    core = 1 / (1 + np.exp(-(r - 2.9) / 0.1))
    return core + 2.2 * np.exp(-0.5 * ((r - first) / 0.17) ** 2) + 0.4 * np.exp(-0.5 * ((r - second) / 0.3) ** 2)


def test_distance():
    reference = np.array([0.0, 2.0, 1.0])
    assert rdf_distance(reference, reference) == 0
    assert rdf_distance(np.zeros(3), reference) == 1
    assert rdf_distance([1.0, 2.0, 3.0], reference) == pytest.approx(1.0)
    assert np.isnan(rdf_distance([np.nan, 2.0, 1.0], reference))
    with pytest.raises(ValueError, match="shape"):
        rdf_distance([1.0], reference)
    with pytest.raises(ValueError, match="zero everywhere"):
        rdf_distance(reference, np.zeros(3))


def test_a_parabola_gives_its_apex_between_the_bins():
    r = np.arange(2.0, 3.2, 0.07)
    assert first_peak(r, np.maximum(3 - 12 * (r - 2.5123) ** 2, 0)) == pytest.approx(2.5123, abs=1e-9)


@pytest.mark.parametrize("width", [0.05, 0.1])
def test_noise_moves_it_little_and_is_no_peak(width):
    r = np.arange(1.0, 6.0, width)
    exact = first_peak(r, liquid(r))
    # the flank of the core pulls the apex up a little
    assert exact == pytest.approx(2.55, abs=0.03)
    random = np.random.default_rng(5)
    found = [first_peak(r, liquid(r) + random.normal(0, 0.08, len(r)) * np.sqrt(liquid(r))) for _ in range(300)]
    # noise of 0.13 on a peak of 2.2: none of 300 is taken for another peak, and their mean is that of no noise
    assert np.abs(np.array(found) - exact).max() < 0.1
    assert np.mean(found) == pytest.approx(exact, abs=0.005)


def test_the_first_peak_counts_even_if_the_second_is_higher():
    r = np.arange(0.0, 5.0, 0.05)
    g = 1.5 * np.exp(-0.5 * ((r - 0.97) / 0.1) ** 2) + 3.0 * np.exp(-0.5 * ((r - 2.8) / 0.15) ** 2)
    assert first_peak(r, g) == pytest.approx(0.97, abs=0.005)


def test_a_peak_of_one_bin():
    r = np.arange(0.0, 5.0, 0.1)
    g = np.zeros(50)
    g[24] = 10.0
    assert first_peak(r, g) == pytest.approx(r[24], abs=1e-9)
    g[23] = 5.0
    assert 2.3 < first_peak(r, g) < 2.4


def test_what_has_no_peak():
    r = np.arange(1.0, 3.0, 0.1)
    assert np.isnan(first_peak(r, np.zeros(20)))
    assert np.isnan(first_peak(r, np.full(20, np.nan)))
    assert np.isnan(first_peak([1.0, 2.0], [0.0, 1.0]))
    with pytest.raises(ValueError, match="shape"):
        first_peak(r, np.zeros(3))


def test_liquid_silicon_has_its_first_peak_where_stillinger_and_weber_have_it():
    """At 2000 K that potential has it at 2.55 Å, density functional theory at 2.43 to 2.475 Å."""
    r = np.arange(1.8, 6.0, 0.05)
    g = radial_distribution(from_atoms(find_system("si-liquid-64").snapshots), np.append(r, 6.0)).mean(0).numpy()
    found = first_peak(r + 0.025, g)
    assert found == pytest.approx(2.55, abs=0.06)
