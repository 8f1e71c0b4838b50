"""The audit end to end: fields whose answers are on paper, and the ways it can end."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from conservbench.cards import build, find_protocol
from conservbench.models import toy
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.work import thermal_loop
from conservbench.outcome import Outcome
from conservbench.protocols.audit.judge import judge
from conservbench.protocols.audit.measure import measure
from conservbench.protocols.audit.settings import Settings
from conservbench.scheme import Scheme
from conservbench.statistics import ratio_interval
from conservbench.systems import find_system

STIFFNESS, CURL = 3.0, 0.7
SMOKE = build(Settings, find_protocol("audit").settings("smoke"), "smoke")
DIRECT, GRADIENT = Scheme("direct"), Scheme("gradient")


class Behind:
    """A model seen through attributes of its own."""

    def __init__(self, model, **attributes):
        self.model = model
        for name in ("channels", "elements", "differentiable", "labelled", "device"):
            setattr(self, name, attributes.get(name, getattr(model, name)))

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        if graph and not self.differentiable:
            raise UnsupportedError("no graph")
        return self.model.evaluate(state, forces=forces, stress=stress, graph=graph)


class Windy(Behind):
    """A constant force of 0.01 eV/Å along x on every atom."""

    def evaluate(self, state, **asked):
        prediction = super().evaluate(state, **asked)
        wind = torch.tensor([0.01, 0.0, 0.0], dtype=torch.float64)
        return Prediction(prediction.energy, {name: pull + wind for name, pull in prediction.forces.items()})


class Doubtful(Behind):
    """Uncertain by 0.03 eV/Å along x and 0.04 along y, times the number of the snapshot from 1 on."""

    def __init__(self, model):
        super().__init__(model)
        self.asked = 0

    def uncertainty(self, state):
        self.asked += 1
        return self.asked * torch.tensor([0.03, 0.04, 0.0], dtype=torch.float64).expand(state.n_atoms, 3)


class Mute(Behind):
    """Without an energy."""

    def evaluate(self, state, **asked):
        return Prediction(None, super().evaluate(state, **asked).forces)


class Broken(Behind):
    """Forces that are not a number."""

    def evaluate(self, state, **asked):
        prediction = super().evaluate(state, **asked)
        return Prediction(prediction.energy, {name: pull * float("nan") for name, pull in prediction.forces.items()})


class HalfDetached(Behind):
    """A second force, equal to the first, that is not in the graph."""

    def evaluate(self, state, **asked):
        prediction = super().evaluate(state, **asked)
        pulls = {name: pull + pull.detach() for name, pull in prediction.forces.items()}
        return Prediction(prediction.energy, pulls)


@pytest.fixture(scope="module")
def system():
    return find_system("si-64")


@pytest.fixture(scope="module")
def swirl(system):
    return toy.ToyModel(toy.Field("swirl", STIFFNESS, CURL), system.sites)


def audit(model, scheme, system, **changes):
    data = measure(model, scheme, system, dataclasses.replace(SMOKE, **changes), lambda fraction: None)
    return data, {finding.metric: finding for finding in judge(data)}


@pytest.fixture(scope="module")
def swirl_audit(swirl, system):
    return audit(swirl, DIRECT, system, n_snapshots=8, n_probes=4, n_exact=2, n_loops=4, bin_width=1.0)


def test_swirl_has_the_asymmetry_on_paper(swirl_audit):
    _, findings = swirl_audit
    truth = toy.asymmetry(STIFFNESS, CURL)
    # 95 % intervals at one fixed seed
    for metric in ("asymmetry", "asymmetry_sites"):
        interval = findings[metric].interval
        assert interval.low < truth < interval.high
        assert interval.high - interval.low < 0.1 * truth
    exact = findings["asymmetry_exact"].interval
    assert (exact.value, exact.low, exact.high) == pytest.approx((truth,) * 3, rel=1e-10)
    assert exact.n == 2


def test_swirl_has_the_loop_work_on_paper(swirl_audit):
    data, findings = swirl_audit
    works = []
    for index in range(4):
        rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(4, index)))
        loop = thermal_loop(rng, 64, SMOKE.n_modes, SMOKE.amplitude)
        moment = (loop.sine * np.cross([0, 0, 1], loop.cosine)).sum((1, 2))
        works.append(2 * np.pi * CURL * float(np.arange(1, SMOKE.n_modes + 1) @ moment))
    np.testing.assert_allclose(data["power"].mean("image"), works, rtol=1e-10)
    finding = findings["loop_work"]
    assert finding.unit == "meV"
    assert finding.interval.value == pytest.approx(1e3 * np.abs(works).mean(), rel=1e-10)


def test_swirl_does_not_follow_its_energy(swirl, swirl_audit):
    """The energy is harmonic, so its slope misses f . dr/ds by the part of the curl."""
    data, findings = swirl_audit
    mismatch = float(((data["energy_slope"] + data["power"]) ** 2).sum() / (data["power"] ** 2).sum()) ** 0.5
    # jackknife bias of the ratio, first order in 1/4 loops
    assert findings["energy_consistency"].interval.value == pytest.approx(mismatch, rel=0.05)
    assert 0.05 < mismatch < CURL / STIFFNESS


def test_labelled_atoms_have_no_permutation(swirl_audit):
    _, findings = swirl_audit
    for metric in ("permutation_error", "net_torque"):
        finding = findings[metric]
        assert finding.interval is None
        assert finding.outcome is Outcome.UNSUPPORTED
        assert finding.reason == "atoms are labelled"


def test_variables_have_units_and_names(swirl_audit):
    data, _ = swirl_audit
    for name in (*data.data_vars, "step", "distance"):
        assert data[name].attrs["units"]
        assert data[name].attrs["long_name"]
    assert data["asymmetry_numerator"].attrs["units"] == "(eV/Å^2)^2"
    assert data.attrs["channel"] == "direct"
    assert data.attrs["estimator"] == "autograd"
    # the first bin holds the 64 diagonal blocks; all pairs are counted
    assert data["pair_count"][0, 0] == 64
    assert (data["pair_count"].sum("distance") == 64**2).all()
    np.testing.assert_allclose(data["distance"][:2], [0.5, 1.5])


def test_the_file_gives_the_same_findings(swirl_audit, tmp_path):
    data, findings = swirl_audit
    data.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "cell.nc", engine="h5netcdf") as read:
        assert {finding.metric: finding for finding in judge(read.load())} == findings


def test_harmonic_crystal_is_zero_within_its_noise(system):
    model = toy.ToyModel(toy.Field("harmonic", STIFFNESS), system.sites)
    _, findings = audit(model, GRADIENT, system)
    for metric in ("asymmetry", "loop_work_relative"):
        assert findings[metric].interval.low == 0
        assert findings[metric].interval.high < 1e-14
    assert findings["energy_consistency"].interval.high < 1e-12


def test_mts_is_audited_by_its_mean_force(system):
    model = toy.ToyModel(toy.Field("two-headed", STIFFNESS, CURL), system.sites)
    data, findings = audit(model, Scheme("mts", 8), system)
    assert data.attrs["channel"] == "gradient"
    assert findings["asymmetry"].interval.value < 1e-14


def test_stillinger_weber_passes_every_gate(system):
    """Whole intervals inside the limits of the card, at the quick tier."""
    card = find_protocol("audit")
    settings = build(Settings, card.settings("quick"), "quick")
    data = measure(StillingerWeber(), GRADIENT, system, settings, lambda fraction: None)
    findings = judge(data)
    assert [finding.metric for finding in findings] == list(card.metrics)
    assert [finding.unit for finding in findings] == [metric.unit for metric in card.metrics.values()]
    for finding in findings:
        limit = card.metrics[finding.metric].below
        if limit is not None:
            assert finding.interval is not None, finding
            assert finding.interval.high < limit, finding


def test_differences_find_what_autograd_finds(swirl, system):
    steps = (1e-5, 1e-4, 1e-3, 1e-2)
    changes = {"n_snapshots": 8, "n_probes": 4, "steps": steps, "n_exact": 1}
    data, findings = audit(Behind(swirl, differentiable=False), DIRECT, system, **changes)
    truth = toy.asymmetry(STIFFNESS, CURL)
    assert data.attrs["estimator"] == "finite differences"
    assert data["exact_numerator"].size == 1
    assert findings["asymmetry_exact"].interval.value == pytest.approx(truth, rel=1e-9)
    interval = findings["asymmetry"].interval
    assert interval.low < truth < interval.high
    assert findings["asymmetry_floor"].interval.value < 1e-9
    assert findings["jacobian_agreement"].outcome is Outcome.UNSUPPORTED


def test_differences_of_a_potential_are_zero_within_their_noise(system):
    """Truncation and rounding leave 1e-10; the change between steps bounds it."""
    model = Behind(StillingerWeber(), differentiable=False)
    _, findings = audit(model, GRADIENT, system, steps=(1e-6, 1e-5, 1e-4, 1e-3))
    interval = findings["asymmetry"].interval
    assert 0 < interval.value < 1e-8
    assert interval.low == 0


def test_differences_choose_a_step_on_the_plateau(system):
    """In single precision rounding rules below 1e-2 Å and truncation above: neither end is chosen."""
    single = Behind(StillingerWeber(dtype=torch.float32), differentiable=False)
    steps = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    data, findings = audit(single, GRADIENT, system, steps=steps)
    assert steps[data.attrs["plateau"]] in (1e-3, 1e-2)
    assert findings["asymmetry"].interval.low == 0


def test_a_direction_preferred_shows_with_its_size(system):
    data, findings = audit(Windy(StillingerWeber()), GRADIENT, system, n_trials=4)
    assert findings["net_force"].interval.value == pytest.approx(0.01, rel=1e-9)
    # |x - R x| <= 2
    assert (data["rotation_deviation"] <= 0.02 * (1 + 1e-9)).all()
    assert (data["rotation_deviation"] > 1e-4).all()
    expected = np.sqrt((data["rotation_deviation"] ** 2).mean() / (data["force_rms"] ** 2).mean())
    # jackknife bias of two snapshots
    assert findings["rotation_error"].interval.value == pytest.approx(float(expected), rel=0.1)
    assert findings["translation_error"].interval.value < 1e-10


def test_a_force_left_out_of_the_graph_is_found(system):
    model = HalfDetached(toy.ToyModel(toy.Field("harmonic", STIFFNESS), system.sites))
    _, findings = audit(model, GRADIENT, system)
    assert findings["jacobian_agreement"].interval.value == pytest.approx(0.5, rel=1e-6)


def test_what_was_not_asked_for_says_why(system):
    _, findings = audit(StillingerWeber(), GRADIENT, find_system("si-liquid-64"))
    assert findings["asymmetry_sites"].reason == "the system has no ideal sites"
    assert findings["asymmetry_exact"].reason == "this tier takes no whole Jacobian"
    assert findings["asymmetry_sites"].interval is None
    _, findings = audit(StillingerWeber(), GRADIENT, system, n_exact=1, exact_atoms=63)
    assert findings["asymmetry_exact"].reason == "64 atoms; taken up to 63 only"


def test_a_model_without_energy_is_judged_without_it(swirl, system):
    _, findings = audit(Mute(swirl), DIRECT, system)
    assert findings["energy_consistency"].outcome is Outcome.UNSUPPORTED
    assert findings["energy_consistency"].reason == "the model has no energy"
    assert findings["loop_work"].interval.value > 0


def test_a_missing_channel_and_a_broken_force_end_the_audit(swirl, system):
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        audit(swirl, GRADIENT, system)
    with pytest.raises(InvalidPredictionError, match="not finite"):
        audit(Broken(swirl), DIRECT, system)


def test_the_uncertainty_is_that_of_the_model(system):
    data, findings = audit(Doubtful(StillingerWeber()), GRADIENT, system, n_snapshots=3)
    np.testing.assert_allclose(data["force_spread"], np.array([1, 2, 3]) * 0.05 / 3**0.5)
    finding = findings["force_uncertainty"]
    assert finding.unit == "meV/Å"
    assert finding.interval.value == pytest.approx(100 / 3**0.5)
    # Student's t over three snapshots, whose standard deviation is 50 / sqrt(3); never below nothing
    assert finding.interval.high == pytest.approx((100 + 4.3027 * 50 / 3**0.5) / 3**0.5, rel=1e-3)
    assert finding.interval.low == 0.0


def test_a_model_without_an_uncertainty_is_not_asked_for_one(swirl_audit):
    data, findings = swirl_audit
    assert findings["force_uncertainty"].outcome is Outcome.UNSUPPORTED
    assert findings["force_uncertainty"].reason == "the model gives no uncertainty of these forces"
    # files of before hold nothing of it
    older = {finding.metric: finding for finding in judge(data.drop_vars("force_spread"))}["force_uncertainty"]
    assert (older.outcome, older.interval) == (Outcome.UNSUPPORTED, None)


def test_seeds_fix_everything(swirl, system):
    first, again = (audit(swirl, DIRECT, system)[0] for _ in range(2))
    xr.testing.assert_identical(first, again)
    other, _ = audit(swirl, DIRECT, system, seed=1)
    assert not np.allclose(other["power"], first["power"])


def test_the_range_is_where_pairs_turn_antisymmetric(swirl_audit):
    """Pair blocks that are symmetric up to 5 Å and antisymmetric beyond."""
    data, _ = swirl_audit
    changed = data.copy(deep=True)
    changed["pair_denominator"][:] = 1.0
    changed["pair_numerator"][:] = np.where(data["distance"] > 5, 4.0, 0.0)
    finding = {finding.metric: finding for finding in judge(changed)}["asymmetry_range"]
    assert finding.unit == "Å"
    assert finding.interval.value == pytest.approx(5.5)


def test_intervals_of_the_asymmetry_cover():
    """1000 draws of 8 snapshots x 4 probes of a fixed 30 x 30 matrix; binomial sigma 0.7 %, so 4 sigma either side."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(30, 30)) + np.diag(rng.normal(5.0, 1.0, 30))
    curl = matrix - matrix.T
    truth = (curl**2).sum() / (4 * (matrix**2).sum())
    probes = rng.choice([-1.0, 1.0], size=(1000, 8, 4, 30))
    numerators = ((probes @ curl.T) ** 2).sum(-1)
    denominators = 0.5 * (((probes @ matrix.T) ** 2).sum(-1) + ((probes @ matrix) ** 2).sum(-1))
    intervals = [ratio_interval(top, 4 * bottom) for top, bottom in zip(numerators, denominators, strict=True)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 < covered < 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_probes": 1}, "n_probes is 1; expected 2 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"n_images": 33}, "n_images is 33; expected an even number"),
        ({"n_images": 8}, "n_images is 8; expected 12 or more"),
        ({"amplitude": 0.0}, "amplitude is 0.0; expected a positive number"),
        ({"steps": (1e-3, 1e-4, 1e-2)}, "ascending"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)


def test_judging_needs_no_torch():
    code = "import sys, conservbench.protocols.audit.judge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
