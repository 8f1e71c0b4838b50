"""The judge of the fidelity protocol on data whose answers are known, without any simulation."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from conservbench.outcome import Outcome
from conservbench.protocols.fidelity.judge import (
    OF_CRYSTAL,
    OF_MOTION,
    cubic_constants,
    elastic_error,
    judge,
    peak_shift,
    phonon_error,
    rdf_change,
    rdf_error,
    rdf_floor,
)

R = np.linspace(0.5, 5.5, 100)
WIDTH = 0.2
APART = R[:, None] - R
# far longer correlated than smearing makes it: a shell that is too near drags the next along
SPREAD = np.exp(-np.abs(APART) / 1.5) * np.cos(2.0 * APART)
ROOT = np.linalg.cholesky(SPREAD + 1e-9 * np.eye(len(R)))
G = np.where(R < 1.5, 0.0, 1.0) + 1.3 * np.exp(-((R - 2.45) ** 2) / 0.12) - 0.6 * np.exp(-((R - 3.2) ** 2) / 0.2)


@dataclass(frozen=True)
class Known:
    """Blocks of a g(r)."""

    r: np.ndarray
    blocks: np.ndarray
    width: float


def noise(rng, n, size):
    return size * rng.normal(size=(n, len(R))) @ ROOT.T


def known(g=G):
    return Known(R, np.tile(g, (3, 1)), WIDTH)


def drawn(rng, m, error):
    """Blocks whose mean has this standard error."""
    return Known(R, G + noise(rng, m, error * np.sqrt(m)), WIDTH)


def off_by(error):
    """A curve that misses G by this L."""
    bump = np.exp(-((R - 2.6) ** 2) / 0.15)
    return G + bump * np.sqrt(error * (G**2).sum() / (bump**2).sum())


def of_motion(rdf, reference, kelvin=2000.0, exploded=()):
    n = len(rdf)
    rng = np.random.default_rng(5)
    lags = np.arange(6) * 0.05
    ends = np.full(n, np.nan)
    ends[list(exploded)] = 0.1
    # r^2 = 6 D t with D of 2, 2.1, 2.2, ... Å^2/ps
    squares = 6 * (2.0 + 0.1 * np.arange(n))[:, None] * lags
    return xr.Dataset(
        {
            "rdf": (("replica", "r"), rdf),
            "reference_rdf_blocks": (("block", "r"), reference.blocks),
            "temperature": (("replica", "time"), kelvin + 10.0 + rng.normal(size=(n, 20))),
            "mean_squared_displacement": (("replica", "lag"), squares),
            "explosion_time": ("replica", ends),
        },
        coords={"r": R, "lag": lags, "time": np.arange(20) * 0.016, "replica": np.arange(n)},
        attrs={"target_temperature": kelvin, "rdf_width": WIDTH},
    )


def mandel(c11, c12, c44):
    matrix = np.diag([c11 - c12] * 3 + [2 * c44] * 3)
    matrix[:3, :3] += c12
    return matrix


PBE = mandel(153.21414, 56.79690, 74.83264)


def of_crystal(**changes):
    frequency = np.tile([0.0, 1.0, 4.0, 9.0, 12.0, 15.0], (10, 1))
    data = xr.Dataset(
        {
            "lattice_constant": ((), 5.431),
            "reference_lattice_constant": ((), 5.468582),
            "elastic_constants": (("row", "column"), mandel(151.4131, 76.4154, 56.4464)),
            "reference_elastic_constants": (("row", "column"), PBE),
            "frequency": (("q", "branch"), 0.9 * frequency),
            "reference_frequency": (("q", "branch"), frequency),
        },
        attrs={f"{part}_{key}": "" for part in ("lattice", "elastic", "phonons") for key in ("outcome", "reason")},
    )
    return data.assign(changes)


def by_metric(findings):
    return {finding.metric: finding for finding in findings}


@pytest.mark.parametrize(("n", "m"), [(6, 6), (8, 11)])
def test_error_of_the_reference_itself_is_zero_on_average(n, m):
    rng, error = np.random.default_rng(1), 0.012
    found = [rdf_error(G + noise(rng, n, 0.03), drawn(rng, m, error)) for _ in range(300)]
    values = np.array([each.value for each in found])
    # four standard errors of the mean of 300, false alarm 6e-5; the floor alone is more
    one = values.std() / np.sqrt(300)
    assert abs(values.mean()) < 4 * one
    assert error**2 * len(R) / (G**2).sum() > 8 * one
    # the interval is too wide here rather than too narrow: 97 % or more were measured
    assert np.mean([each.low <= 0 <= each.high for each in found]) > 0.93


@pytest.mark.parametrize(("n", "m"), [(6, 6), (8, 11)])
@pytest.mark.parametrize("error", [3e-4, 7e-3])
def test_error_is_that_of_the_expectations(error, n, m):
    rng = np.random.default_rng(2)
    found = [rdf_error(off_by(error) + noise(rng, n, 0.03), drawn(rng, m, 0.012)) for _ in range(300)]
    values = np.array([each.value for each in found])
    assert abs(values.mean() - error) < 4 * values.std() / np.sqrt(300) + 0.01 * error
    # 90 % or more were measured; 300 trials of these scatter by 1.7 %: three of these below, false alarm 1e-3
    assert np.mean([each.low <= error <= each.high for each in found]) > 0.85


def test_error_without_noise_is_the_formula():
    reference = known()
    found = rdf_error(np.tile(off_by(0.005), (4, 1)), reference)
    assert found.value == pytest.approx(0.005)
    assert found.low == pytest.approx(0.005)
    assert rdf_floor(reference) < 1e-30
    # two blocks that differ by 0.02 have a mean with a standard error of 0.01
    pair = Known(R, np.stack((G - 0.01, G + 0.01)), WIDTH)
    assert rdf_floor(pair) == pytest.approx(1e-4 * 100 / (G**2).sum())


def test_change_is_negative_where_the_error_fell():
    rng = np.random.default_rng(3)
    shared = noise(rng, 8, 0.03)
    reference = drawn(rng, 8, 0.01)
    found = rdf_change(off_by(5e-4) + shared, off_by(5e-3) + shared, reference)
    assert found.value == pytest.approx(-4.5e-3, abs=1.5e-3)
    assert found.high < 0
    assert rdf_change(off_by(5e-4) + shared, off_by(5e-4) + shared, reference).value == 0


def test_shift_of_the_peak():
    moved = np.where(R < 1.5, 0.0, 1.0) + 1.3 * np.exp(-((R - 2.55) ** 2) / 0.12)
    moved -= 0.6 * np.exp(-((R - 3.3) ** 2) / 0.2)
    assert peak_shift(np.tile(moved, (3, 1)), known()).value == pytest.approx(0.1, abs=0.005)
    assert peak_shift(np.tile(G, (3, 1)), known()).value == 0


def test_the_peak_is_the_first_one_even_where_the_second_is_higher():
    def crystal(first):
        return 1.2 * np.exp(-((R - first) ** 2) / 0.1) + 1.4 * np.exp(-((R - 1.63 * first) ** 2) / 0.15)

    assert peak_shift(np.tile(crystal(2.38), (3, 1)), known(crystal(2.35))).value == pytest.approx(0.03, abs=0.003)
    with pytest.raises(ValueError, match="has no peak"):
        peak_shift(np.tile(G, (3, 1)), known(np.linspace(0, 1, 100)))


def test_a_crystal_has_no_diffusion():
    data = of_motion(np.tile(G, (3, 1)), known()).assign(is_crystal=((), True))
    diffusion = by_metric(judge(data))["diffusion"]
    assert (diffusion.interval, diffusion.outcome) == (None, Outcome.UNSUPPORTED)
    assert diffusion.reason == "atoms of a crystal stay at their sites"


def test_elastic_error_is_the_published_one():
    # Gangan et al., arXiv 2409.13844: Stillinger-Weber and EDIP against PBE
    assert elastic_error(mandel(151.4131, 76.4154, 56.4464), PBE) == pytest.approx(79.848, abs=1e-3)
    assert elastic_error(mandel(172.0389, 64.6745, 72.7842), PBE) == pytest.approx(38.546, abs=1e-3)
    # the gate of the card: PBE against experiment
    assert elastic_error(mandel(166, 64, 80), PBE) == pytest.approx(33.5, abs=0.05)
    assert cubic_constants(PBE) == pytest.approx((153.21414, 56.79690, 74.83264))


def test_phonon_error_does_not_mind_the_order_of_branches():
    wanted = np.array([[0.0, 1.0, 2.0], [-1.0, 3.0, 4.0]])
    assert phonon_error(wanted[:, ::-1], wanted) == 0
    assert phonon_error(wanted + 0.5, wanted) == pytest.approx(0.5)


def test_crystal():
    found = by_metric(judge(of_crystal()))
    assert set(found) == {*OF_CRYSTAL, *OF_MOTION}
    value = {metric: found[metric].interval.value for metric in OF_CRYSTAL}
    assert value["lattice_error"] == pytest.approx(5.431 - 5.468582)
    assert value["elastic_error"] == pytest.approx(79.848, abs=1e-3)
    assert (value["c11"], value["c12"], value["c44"]) == pytest.approx((151.4131, 76.4154, 56.4464))
    # of C11 - C12, 2 C44 and C11 + 2 C12 the least
    assert value["elastic_stability"] == pytest.approx(151.4131 - 76.4154)
    assert value["phonon_error"] == pytest.approx(0.1 * 41 / 6)
    assert value["phonon_scale"] == pytest.approx(0.9)
    assert value["imaginary_modes"] == 0
    for metric in OF_CRYSTAL:
        interval = found[metric].interval
        assert interval.low == interval.value == interval.high
        assert found[metric].unit == OF_CRYSTAL[metric]
    assert all(found[metric].outcome is Outcome.UNSUPPORTED and found[metric].reason for metric in OF_MOTION)


def test_imaginary_modes_are_counted():
    data = of_crystal()
    data.frequency.values[3, :2] = (-2.0, -0.06)
    data.frequency.values[4, 0] = -0.04
    assert by_metric(judge(data))["imaginary_modes"].interval.value == 2


def test_an_unstable_crystal_is_told():
    matrix = mandel(100.0, 110.0, 50.0)
    assert by_metric(judge(of_crystal(elastic_constants=(("row", "column"), matrix))))[
        "elastic_stability"
    ].interval.value == pytest.approx(-10.0)


def test_what_was_not_measured_has_the_outcome_of_its_part():
    data = of_crystal().drop_vars(["lattice_constant", "elastic_constants"])
    data.attrs |= {"lattice_outcome": "unsupported", "lattice_reason": "the model has no stress"}
    data.attrs |= {"elastic_outcome": "failed", "elastic_reason": "not finite", "phonons_reason": "at that of PBE"}
    found = by_metric(judge(data))
    assert found["lattice_error"].outcome is Outcome.UNSUPPORTED
    assert found["lattice_error"].reason == "the model has no stress"
    for metric in ("elastic_error", "c11", "c12", "c44", "elastic_stability"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.FAILED)
    assert found["phonon_error"].interval is not None
    assert found["phonon_error"].reason == "at that of PBE"


def test_motion():
    rng = np.random.default_rng(4)
    reference = drawn(rng, 8, 0.01)
    found = by_metric(judge(of_motion(off_by(5e-3) + noise(rng, 8, 0.02), reference)))
    assert found["rdf_error"].interval.value == pytest.approx(5e-3, rel=0.4)
    assert found["rdf_floor"].interval.value == rdf_floor(reference)
    assert found["temperature_error"].interval.value == pytest.approx(10.0, abs=0.5)
    assert found["diffusion"].interval.value == pytest.approx(2.35)
    assert found["rdf_error"].outcome is Outcome.COMPLETED
    assert all(found[metric].outcome is Outcome.UNSUPPORTED for metric in OF_CRYSTAL)


def test_replicas_that_exploded_are_left_out_and_told():
    rdf = np.tile(off_by(0.01), (5, 1))
    rdf[1:3] = np.nan
    found = by_metric(judge(of_motion(rdf, known(), exploded=(1, 2))))
    assert found["rdf_error"].outcome is Outcome.EXPLODED
    assert found["rdf_error"].interval.value == pytest.approx(0.01)
    assert found["rdf_error"].interval.n == 3
    assert "2 of 5 replicas exploded" in found["rdf_error"].reason


def test_one_replica_or_none_has_no_error_but_a_reason():
    found = by_metric(judge(of_motion(G[None], known())))
    assert found["rdf_error"].interval is None
    assert found["rdf_error"].outcome is Outcome.UNSUPPORTED
    assert "two replicas" in found["rdf_error"].reason
    found = by_metric(judge(of_motion(np.full((2, 100), np.nan), known(), exploded=(0, 1))))
    assert found["rdf_error"].outcome is Outcome.EXPLODED
    assert found["rdf_error"].interval is None


def test_judging_imports_no_torch():
    code = (
        "import sys, conservbench.protocols.fidelity.judge, conservbench.protocols.fidelity.settings;"
        "print({'ase', 'torch'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
