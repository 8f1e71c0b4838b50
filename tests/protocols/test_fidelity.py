"""The fidelity protocol end to end: a potential against itself, against published numbers, and what models lack."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from conservbench.cards import build, find_protocol
from conservbench.models.base import Prediction, UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.models.two_models import TwoModels
from conservbench.outcome import Outcome
from conservbench.protocols.fidelity.crystal import is_crystal_of, measure_crystal
from conservbench.protocols.fidelity.judge import OF_CRYSTAL, OF_MOTION, cubic_constants, judge, of_crystal
from conservbench.protocols.fidelity.liquid import measure_rdf
from conservbench.protocols.fidelity.measure import measure
from conservbench.protocols.fidelity.settings import Sampling, Settings
from conservbench.references import find_reference
from conservbench.result import read_result, write_result
from conservbench.scheme import Scheme
from conservbench.systems import find_system

GRADIENT = Scheme("gradient")
SAMPLING = Sampling(
    replicas=6, duration=0.32, time_step=2.0, sample_every=16.0, equilibration_time=0.064, longest_lag=0.16
)
BRIEF = dataclasses.replace(SAMPLING, replicas=2, duration=0.064, equilibration_time=0.016, longest_lag=0.032)


def silent(fraction):
    pass


@dataclass(frozen=True)
class Known:
    """A g(r) of a reference, with the conditions it holds at."""

    r: np.ndarray
    blocks: np.ndarray
    width: float = 0.2
    temperature: float = 2000.0
    volume: float = 20.023
    source: str = "a potential"

    @property
    def g(self):
        return self.blocks.mean(0)


def known(blocks=None):
    flat = np.ones((3, 100)) + np.array([[-0.01], [0.0], [0.01]])
    return Known(np.linspace(0.5, 5.5, 100), flat if blocks is None else blocks)


def by_metric(findings):
    return {finding.metric: finding for finding in findings}


@pytest.fixture(scope="module")
def melt():
    return find_system("si-melt-64")


@pytest.fixture(scope="module")
def itself(melt):
    """g(r) of Stillinger-Weber from twelve other trajectories."""
    longer = dataclasses.replace(SAMPLING, replicas=12, seed=7)
    data = measure_rdf(StillingerWeber(), GRADIENT, melt, known(), longer, silent)
    return known(data.rdf.values)


@pytest.fixture(scope="module")
def measured(melt, itself):
    return measure_rdf(StillingerWeber(), GRADIENT, melt, itself, SAMPLING, silent)


def test_a_potential_does_not_miss_itself(measured):
    found = by_metric(judge(measured))
    error = found["rdf_error"]
    assert error.outcome is Outcome.COMPLETED
    # a 95 % interval about zero that covers more than that; the seeds are fixed
    assert error.interval.low < 0 < error.interval.high
    assert abs(error.interval.value) < 5e-4
    assert abs(found["peak_shift"].interval.value) < 0.02
    # 6 trajectories of 20 samples of 189 momenta scatter by 19 K: four sigma, false alarm 6e-5
    assert abs(found["temperature_error"].interval.value) < 76
    # l-Si at this density: some 1 to 4 Å^2/ps
    assert 0.5 < found["diffusion"].interval.value < 5


def test_another_potential_misses_it(melt, itself, measured):
    # repulsion as if atoms were 3 % larger
    data = measure_rdf(StillingerWeber({"sigma": 2.158}), GRADIENT, melt, itself, SAMPLING, silent)
    found, same = by_metric(judge(data)), by_metric(judge(measured))
    assert found["rdf_error"].interval.low > same["rdf_error"].interval.high
    assert found["peak_shift"].interval.low > 0.02


def test_replicas_of_two_models_start_alike(melt, measured):
    """At the first sample momenta are those of the seed, whatever the model did to them in equilibration."""
    none = dataclasses.replace(BRIEF, equilibration_time=0.0)
    first, second = (
        measure_rdf(model, GRADIENT, melt, known(), none, silent)
        for model in (StillingerWeber(), StillingerWeber({"epsilon": 1.5}))
    )
    np.testing.assert_array_equal(first.temperature[:, 0], second.temperature[:, 0])
    assert (first.temperature[:, -1] != second.temperature[:, -1]).all()


def test_results_are_the_same_again(melt):
    first, second = (measure_rdf(StillingerWeber(), GRADIENT, melt, known(), BRIEF, silent) for _ in range(2))
    assert first.identical(second)


def test_variables_have_units(measured):
    for name in measured.variables:
        assert {"units", "long_name"} <= set(measured[name].attrs), name


def test_mts_samples_the_ensemble_of_its_slow_force(melt, itself):
    both = TwoModels(StillingerWeber(), StillingerWeber({"epsilon": 2.0}), "gradient")
    data = measure_rdf(both, Scheme("mts", 2), melt, itself, dataclasses.replace(SAMPLING, time_step=1.0), silent)
    error = by_metric(judge(data))["rdf_error"].interval
    assert error.low < 0 < error.high
    assert (data.attrs["scheme"], data.attrs["stride"]) == ("mts", 2)


def test_a_stride_that_does_not_fit_the_sampling_is_unsupported(melt):
    both = TwoModels(StillingerWeber(), StillingerWeber(), "gradient")
    with pytest.raises(UnsupportedError, match="stride 3 x 2 fs does not divide"):
        measure_rdf(both, Scheme("mts", 3), melt, known(), BRIEF, silent)


def test_a_reference_of_other_conditions_is_unsupported(melt):
    for other in (dataclasses.replace(known(), temperature=2530.0), dataclasses.replace(known(), volume=20.44)):
        with pytest.raises(UnsupportedError, match=r"system si-melt-64 has 20.02 Å\^3/atom at 2000 K, the reference"):
            measure_rdf(StillingerWeber(), GRADIENT, melt, other, BRIEF, silent)


def test_a_channel_that_is_not_there_is_unsupported(melt):
    with pytest.raises(UnsupportedError, match="no direct forces"):
        measure_rdf(StillingerWeber(), Scheme("direct"), melt, known(), BRIEF, silent)


class Exploding:
    """Forces that throw apart the replica whose first atom is where it is told, within 1 Å."""

    def __init__(self, lost):
        self.inner, self.lost = StillingerWeber(), lost
        self.channels, self.elements = ("gradient",), None
        self.differentiable, self.labelled, self.device = False, False, self.inner.device

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        said = self.inner.evaluate(state, forces=forces, stress=stress)
        near = (state.positions - torch.as_tensor(self.lost)).square().sum(1) < 1.0
        thrown = state.sum(near.double() * (torch.arange(state.n_atoms) % 64 == 0))[state.system, None]
        return Prediction(said.energy, {name: pull * (1.0 + 100.0 * thrown) for name, pull in said.forces.items()})


def test_replicas_that_explode_are_recorded_and_left_out(melt):
    model = Exploding(melt.snapshots[1].positions[0])
    data = measure_rdf(model, GRADIENT, melt, known(), dataclasses.replace(BRIEF, replicas=4), silent)
    assert data.attrs["outcome"] == "exploded"
    assert "1 of 4 replicas exploded" in data.attrs["outcome_reason"]
    assert np.isfinite(data.explosion_time[1])
    assert np.isnan(data.rdf[1]).all()
    assert np.isfinite(data.rdf[[0, 2, 3]]).all()
    error = by_metric(judge(data))["rdf_error"]
    assert error.outcome is Outcome.EXPLODED
    assert error.interval.n == 3


def test_progress_goes_from_zero_to_one(melt):
    told = []
    measure_rdf(StillingerWeber(), GRADIENT, melt, known(), BRIEF, told.append)
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] == 1


@pytest.fixture(scope="module")
def reference():
    return find_reference("si-pbe")


@pytest.fixture(scope="module")
def sites():
    return find_system("si-64").sites


@pytest.fixture(scope="module")
def at_rest(sites, reference):
    return measure_crystal(StillingerWeber(), GRADIENT, sites, reference)


# C11, C12, C44 at a = 5.431 and 5.430 Å, distance from PBE; frequencies at G, X and L: Gangan et al., arXiv 2409.13844
PUBLISHED = {
    "sw": (StillingerWeber, (151.4131, 76.4154, 56.4464), 79.848, 17.832, (6.651, 12.993, 15.628), (4.703, 16.766)),
    "edip": (EDIP, (172.0389, 64.6745, 72.7842), 38.546, 18.696, (7.951, 13.741, 15.626), (5.622, 17.229)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_crystal_has_the_published_properties(sites, reference, name):
    kind, constants, distance, optical, at_x, at_l = PUBLISHED[name]
    data = measure_crystal(kind(), GRADIENT, sites, reference)
    assert data.attrs["outcome"] == "completed"
    found = {metric: each.interval for metric, each in by_metric(of_crystal(data)).items()}
    # both have their minimum within 5e-4 Å of where the published constants were taken, 0.05 GPa
    assert found["lattice_error"].value + 5.468582 == pytest.approx(5.4305, abs=6e-4)
    assert [found[key].value for key in ("c11", "c12", "c44")] == pytest.approx(constants, abs=0.06)
    assert found["elastic_error"].value == pytest.approx(distance, abs=0.01)
    named = dict(zip(data.point.values.tolist(), data.frequency.values, strict=True))
    assert named["G"][3:] == pytest.approx(optical, abs=0.02)
    assert named["G"][:3] == pytest.approx(0.0, abs=1e-4)
    assert named["X"][::2] == pytest.approx(at_x, abs=0.02)
    assert named["L"][[0, -1]] == pytest.approx(at_l, abs=0.02)
    assert found["imaginary_modes"].value == 0
    assert found["phonon_scale"].value > 1.1


def test_the_reference_lies_beside_the_model(at_rest):
    named = dict(zip(at_rest.point.values.tolist(), at_rest.reference_frequency.values, strict=True))
    assert named["G"][-1] == pytest.approx(15.059, abs=0.02)
    assert named["X"][::2] == pytest.approx((4.401, 12.016, 13.371), abs=0.02)
    assert float(at_rest.reference_lattice_constant) == 5.468582
    assert cubic_constants(at_rest.reference_elastic_constants) == pytest.approx((153.21414, 56.79690, 74.83264))
    for name in at_rest.variables:
        assert {"units", "long_name"} <= set(at_rest[name].attrs), name


def test_any_supercell_is_the_crystal(sites, reference, at_rest):
    """A crystal that is moved, stretched and in another order."""
    order = np.random.default_rng(0).permutation(64)
    moved = sites[order]
    moved.set_cell(sites.cell.array * 1.03, scale_atoms=True)
    moved.translate([0.3, -1.2, 0.7])
    assert is_crystal_of(moved, reference)
    data = measure_crystal(StillingerWeber(), GRADIENT, moved, reference)
    np.testing.assert_allclose(data.frequency, at_rest.frequency, atol=1e-6)
    np.testing.assert_allclose(data.elastic_constants, at_rest.elastic_constants, atol=1e-6)


def test_the_first_atom_may_lie_on_either_sublattice(sites, reference):
    quarter = reference.lattice_constant / 4 * np.ones(3)
    inverted = sites.copy()
    inverted.positions = -inverted.positions + quarter
    for each in (sites, inverted, sites[::-1], inverted[::-1]):
        assert is_crystal_of(each, reference)


@pytest.mark.parametrize("name", ["si-melt-64", "si-vacancy-63", "sic-64"])
def test_other_structures_are_not_the_crystal(reference, name):
    assert not is_crystal_of(find_system(name).sites, reference)


def test_mts_is_its_gradient_at_rest(sites, reference, at_rest):
    both = TwoModels(StillingerWeber(), EDIP(), "gradient")
    data = measure_crystal(both, Scheme("mts", 4), sites, reference)
    assert data.attrs["channel"] == "gradient"
    for name in ("lattice_constant", "elastic_constants", "frequency"):
        np.testing.assert_allclose(data[name], at_rest[name], atol=1e-9)


def test_direct_forces_follow_their_own_jacobian_and_the_stress_of_the_energy(sites, reference, at_rest):
    both = TwoModels(StillingerWeber(), EDIP(), "gradient")
    data = measure_crystal(Told(both), Scheme("direct"), sites, reference)
    assert float(data.lattice_constant) == float(at_rest.lattice_constant)
    # the phonons are those of EDIP at the lattice constant of Stillinger-Weber
    optical = dict(zip(data.point.values.tolist(), data.frequency.values, strict=True))["G"][-1]
    assert optical == pytest.approx(18.696, abs=0.05)
    found = by_metric(of_crystal(data))
    assert found["elastic_error"].reason == "stress of the energy, atoms follow the direct forces"
    assert found["phonon_error"].reason == "force constants symmetrised"
    # C11 and C12 move no atom in diamond, C44 does
    assert found["c11"].interval.value == pytest.approx(151.42, abs=0.01)
    assert abs(found["c44"].interval.value - 56.45) > 0.5


class Told:
    """A model that also says its energy when asked for direct forces alone, as a two-headed network does."""

    differentiable, labelled = True, False

    def __init__(self, inner):
        self.inner, self.channels, self.elements, self.device = inner, inner.channels, inner.elements, inner.device

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        said = self.inner.evaluate(state, forces=forces, stress=stress, graph=graph)
        energy = self.inner.evaluate(state, graph=graph).energy
        return Prediction(energy, said.forces, said.stress)


class Without:
    """A potential that lacks or breaks something, and is not differentiable."""

    channels, elements, differentiable, labelled = ("gradient",), frozenset({14}), False, False

    def __init__(self, change):
        self.inner, self.change = StillingerWeber(), change
        self.device = self.inner.device

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return self.change(self.inner.evaluate(state, forces=forces, stress=stress))


def test_differences_do_where_derivatives_are_not_there(sites, reference, at_rest):
    data = measure_crystal(Without(lambda said: said), GRADIENT, sites, reference)
    assert data.attrs["outcome"] == "completed"
    np.testing.assert_allclose(data.elastic_constants, at_rest.elastic_constants, atol=0.1)
    np.testing.assert_allclose(data.frequency, at_rest.frequency, atol=0.02)


def test_without_a_stress_there_are_phonons_at_the_lattice_constant_of_the_reference(sites, reference):
    data = measure_crystal(Without(lambda said: Prediction(said.energy, said.forces)), GRADIENT, sites, reference)
    assert float(data.cell_constant) == 5.468582
    assert data.attrs["outcome"] == "completed"
    assert "lattice: the model has no stress" in data.attrs["outcome_reason"]
    found = by_metric(of_crystal(data))
    for metric in ("lattice_error", "elastic_error", "c44"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.UNSUPPORTED)
    assert found["phonon_error"].interval.value > 1
    assert found["phonon_error"].reason == "at the lattice constant of the reference"


def test_a_model_that_is_broken_has_outcomes(sites, reference):
    def broken(said):
        stress = None if said.stress is None else said.stress * torch.nan
        return Prediction(said.energy, {name: pull * torch.nan for name, pull in said.forces.items()}, stress)

    data = measure_crystal(Without(broken), GRADIENT, sites, reference)
    assert data.attrs["outcome"] == "failed"
    for finding in of_crystal(data):
        assert (finding.interval, finding.outcome) == (None, Outcome.FAILED)
        assert "not finite" in finding.reason


def test_a_model_that_ties_atoms_to_their_sites_is_unsupported(sites, reference):
    with pytest.raises(UnsupportedError, match="ties atoms to their sites"):
        measure_crystal(ToyModel(Field("harmonic", 7.4), sites), GRADIENT, sites, reference)


QUICK = build(Settings, find_protocol("fidelity").settings("smoke"), "smoke")


def test_the_system_says_what_is_measured(melt):
    told = []
    at_rest = measure(StillingerWeber(), GRADIENT, find_system("si-64"), QUICK, told.append)
    assert told[-1] == 1
    moving = measure(StillingerWeber(), GRADIENT, melt, QUICK, silent)
    assert at_rest.attrs["reference"] == moving.attrs["reference"] == "si-pbe"
    assert "frequency" in at_rest
    assert "rdf" in moving
    warm = measure(StillingerWeber(), GRADIENT, find_system("si-warm-64"), QUICK, silent)
    assert "rdf" in warm
    assert (bool(moving.is_crystal), bool(warm.is_crystal)) == (False, True)
    with pytest.raises(UnsupportedError, match="si-pbe has neither a g\\(r\\) nor the crystal of si-vacancy-63"):
        measure(StillingerWeber(), GRADIENT, find_system("si-vacancy-63"), QUICK, silent)


def test_results_survive_a_file(tmp_path, measured, at_rest):
    for name, data in (("melt", measured), ("crystal", at_rest)):
        write_result(data, tmp_path / f"{name}.nc")
        assert judge(read_result(tmp_path / f"{name}.nc")) == judge(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"duration": 0.47}, "no multiple of sample_every"),
        ({"time_step": 3.0}, "no multiple of the time step"),
        ({"longest_lag": 1.0}, "longest_lag is 1.0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"equilibration_time": -1.0}, "equilibration_time is -1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SAMPLING, **change)


@pytest.mark.parametrize("tier", ["smoke", "quick", "standard"])
def test_card_has_the_settings_and_the_metrics_that_are_judged(tier):
    card = find_protocol("fidelity")
    settings = build(Settings, card.settings(tier), tier)
    assert isinstance(settings, Sampling)
    units = OF_CRYSTAL | OF_MOTION
    assert {key: metric.unit for key, metric in card.metrics.items()} == units
