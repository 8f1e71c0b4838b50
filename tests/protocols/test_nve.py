"""The NVE protocol end to end: toy fields with answers on paper, synthetic series, explosions, no energy."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from conservbench.cards import build, find_protocol
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.ase import ASEModel
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel, exact_energy, heating_rate
from conservbench.outcome import Outcome
from conservbench.protocols.nve.judge import UNITS, judge
from conservbench.protocols.nve.measure import measure
from conservbench.protocols.nve.settings import Settings
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.statistics import Interval, slope_interval
from conservbench.systems import System, find_system
from conservbench.units import BOLTZMANN, PICOSECOND

STIFFNESS, CURL, KELVIN, MASS = 8.0, 0.4, 500.0, 28.085
SETTINGS = Settings(replicas=4, duration=0.4, time_steps=(1.0, 2.0), sample_every=8.0, equilibration_time=0.0)


def silent(fraction):
    pass


@pytest.fixture(scope="module")
def crystal():
    """Eight atoms; 40 thermal snapshots of the harmonic crystal, so that energies have equipartition."""
    sites = bulk("Si", cubic=True, a=5.431)
    start = from_atoms([sites] * 40)
    displacements = draw_momenta(start, KELVIN, Noise(77)).numpy().reshape(40, 8, 3) / np.sqrt(STIFFNESS * MASS)
    snapshots = []
    for displacement in displacements:
        snapshots.append(sites.copy())
        snapshots[-1].positions += displacement
    return System("toy-8", 1, "harmonic crystal", KELVIN, sites, tuple(snapshots), "none", "none")


def toy(crystal, name, curl=0.0):
    return ToyModel(Field(name, STIFFNESS, curl), crystal.sites)


def findings(data):
    return {finding.metric: finding for finding in judge(data)}


def covers(interval, value):
    return interval.low <= value <= interval.high


def test_harmonic_crystal_has_no_drift_and_order_two(crystal):
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, SETTINGS, silent)
    found = findings(data)
    for metric in ("drift", "drift_dt0"):
        # 95 % intervals at one seed; the size, too, as an interval that is wide covers anything
        assert covers(found[metric].interval, 0.0)
        assert found[metric].interval.high - found[metric].interval.low < 0.2
    assert found["order"].interval.value == pytest.approx(2.0, abs=0.05)
    assert found["drift_ratio"].interval.value < 0.01
    assert (found["explosion_time"].interval.value, found["explosion_time"].interval.high) == (0.4, np.inf)
    assert data.attrs["outcome"] == "completed"
    assert (data.attrs["n_atoms"], data.attrs["n_dof"]) == (8, 21.0)


def test_the_temperature_is_that_of_the_system(crystal):
    """Equipartition holds from the start, so all times of all replicas have the mean 500 K."""
    settings = dataclasses.replace(SETTINGS, replicas=40, time_steps=(2.0,))
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, settings, silent)
    per_replica = data.temperature.mean("time").values
    # <K> of a replica scatters like its total energy: four sigma, false alarm 6e-5
    assert per_replica.mean() == pytest.approx(KELVIN, abs=4 * KELVIN / np.sqrt(21 * 40))
    kinetic = 2 * 8 * data.kinetic_energy / (21 * BOLTZMANN)
    np.testing.assert_allclose(kinetic.values, data.temperature.values, rtol=1e-12)
    assert data.temperature.attrs["units"] == "K"
    assert data.kinetic_energy.attrs["units"] == data.total_energy.attrs["units"] == "eV/atom"


def test_equilibration_brings_a_cold_start_to_the_temperature(crystal):
    cold = dataclasses.replace(crystal, snapshots=(crystal.sites,))
    settings = dataclasses.replace(
        SETTINGS, replicas=40, time_steps=(4.0,), duration=0.08, equilibration_time=0.3, equilibration_tau=20.0
    )
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), cold, settings, silent)
    # 21 k_B T shared by 8 atoms, potential energy 1 % high at 4 fs: mean over 40 replicas, four sigma
    expected = 21 * BOLTZMANN * KELVIN / 8
    assert data.total_energy.values.mean() == pytest.approx(expected, rel=0.006 + 4 / np.sqrt(21 * 40))


def test_each_swirl_replica_heats_as_on_paper(crystal):
    field = Field("swirl", STIFFNESS, CURL)
    settings = dataclasses.replace(SETTINGS, time_steps=(0.5,), seed=3)
    model = ToyModel(field, crystal.sites)
    data = measure(model, Scheme("direct"), crystal, settings, silent)
    start = from_atoms(crystal.snapshots[:4])
    momenta = draw_momenta(start, KELVIN, Noise(3)).numpy().reshape(4, 8, 3)
    displacements = model.displacements(start, start.positions, start.cell).numpy().reshape(4, 8, 3)
    times = data.time.values * PICOSECOND
    for replica in range(4):
        paper = exact_energy(field, times, displacements[replica], momenta[replica], MASS, crystal.sites.cell[2]) / 8
        measured = data.total_energy.values[0, replica]
        assert paper[-1] > 1.2 * paper[0]
        # the error of a step is (w dt)^2 / 8 = 9e-5, and grows with the energy
        np.testing.assert_allclose(measured, paper, rtol=3e-4)


def test_intervals_cover_the_heating_rate_on_paper(crystal):
    """Ten cells of four replicas each; seven hits or more of ten at 95 % fail at a rate of 0.1 %."""
    field = Field("swirl", STIFFNESS, CURL)
    settings = dataclasses.replace(SETTINGS, replicas=40)
    data = measure(ToyModel(field, crystal.sites), Scheme("direct"), crystal, settings, silent)
    rate = heating_rate(field, data.time.values * PICOSECOND, KELVIN, MASS, 8) * PICOSECOND * 1e3
    assert rate > 50  # meV/atom/ps
    cells = [findings(data.isel(replica=slice(k, k + 4))) for k in range(0, 40, 4)]
    for metric in ("drift", "drift_dt0"):
        assert sum(covers(cell[metric].interval, rate) for cell in cells) >= 7
    whole = findings(data)["drift"].interval
    assert whole.n == 40
    # 40 energies of about 2 x 21 degrees of freedom: 3.5 %; four sigma
    assert whole.value == pytest.approx(rate, rel=0.14)
    # forces that are no gradient: energy comes in whatever the time step
    assert abs(findings(data)["order"].interval.value) < 0.05


def test_mts_takes_the_heating_away(crystal):
    settings = dataclasses.replace(SETTINGS, time_steps=(0.5, 1.0))
    model = toy(crystal, "two-headed", CURL)
    direct = findings(measure(model, Scheme("direct"), crystal, settings, silent))["drift"].interval
    mts = measure(model, Scheme("mts", 8), crystal, settings, silent)
    assert direct.low > 5
    assert abs(findings(mts)["drift"].interval.value) < 1.0
    assert (mts.attrs["scheme"], mts.attrs["stride"]) == ("mts", 8)


def test_a_stride_that_misses_the_samples_is_unsupported(crystal):
    with pytest.raises(UnsupportedError, match=r"stride 3 x 1 fs does not divide sample_every = 8 fs"):
        measure(toy(crystal, "two-headed", CURL), Scheme("mts", 3), crystal, SETTINGS, silent)


def test_a_model_without_the_channel_is_unsupported(crystal):
    with pytest.raises(UnsupportedError, match="the model has no direct forces"):
        measure(toy(crystal, "harmonic"), Scheme("direct"), crystal, SETTINGS, silent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"time_steps": ()}, "time_steps is"),
        ({"time_steps": (1.0, 1.0)}, "time_steps is"),
        ({"time_steps": (1.0, -2.0)}, "time_steps is -2.0; expected a positive number"),
        ({"time_steps": (3.0,)}, "sample_every 8.0 fs is no multiple of the time step 3.0 fs"),
        ({"duration": 0.401}, "duration 0.401 ps is no multiple of sample_every 8.0 fs"),
        ({"duration": 0.008}, "fewer than 2 samples"),
        ({"equilibration_time": -1.0}, "equilibration_time is -1.0"),
        ({"equilibration_time": np.nan}, "equilibration_time is nan; expected 0 or more"),
        ({"settling_time": np.inf}, "settling_time is inf; expected 0 or more"),
        ({"duration": np.inf}, "duration is inf; expected a positive number"),
        ({"sample_every": np.inf}, "sample_every is inf; expected a positive number"),
        ({"equilibration_tau": np.inf}, "equilibration_tau is inf; expected a positive number"),
        ({"time_steps": (1.0, np.inf)}, "time_steps is inf; expected a positive number"),
        ({"time_steps": (1.0, np.nan)}, "time_steps is nan; expected a positive number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


class Wrapped:
    """A toy field of which something is changed."""

    elements = None
    differentiable = False
    labelled = True
    device = torch.device("cpu")

    def __init__(self, model, change):
        self.model, self.change = model, change
        self.channels = model.channels

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return self.change(state, self.model.evaluate(state, forces=forces))


def test_a_model_without_an_energy_is_judged_by_its_heating(crystal):
    model = Wrapped(toy(crystal, "swirl", CURL), lambda state, prediction: Prediction(None, prediction.forces))
    data = measure(model, Scheme("direct"), crystal, SETTINGS, silent)
    assert "total_energy" not in data
    found = findings(data)
    assert found["temperature_drift"].interval is not None
    for metric in ("drift", "fluctuation", "drift_ratio", "drift_dt0", "order"):
        assert found[metric].interval is None
        assert found[metric].outcome is Outcome.UNSUPPORTED
        assert "no energy" in found[metric].reason
    assert data.attrs["outcome"] == "completed"


def test_explosions_are_recorded_and_left_out(crystal):
    """The field turns repulsive for replicas with an atom beyond 0.25 Å: here some of four."""
    inner = toy(crystal, "harmonic")

    def change(state, prediction):
        far = inner.displacements(state, state.positions, state.cell).square().sum(1) > 0.25**2
        broken = state.sum(far.double())[state.system, None] > 0
        pulls = {key: torch.where(broken, -1e4 * force, force) for key, force in prediction.forces.items()}
        return Prediction(prediction.energy, pulls)

    data = measure(Wrapped(inner, change), Scheme("gradient"), crystal, SETTINGS, silent)
    ends = data.explosion_time.values
    n_lost = int(np.isfinite(ends[0]).sum())
    assert 0 < n_lost < 4
    assert data.attrs["outcome"] == "exploded"
    assert f"{n_lost} of 4 replicas exploded at 1 fs" in data.attrs["outcome_reason"]
    for step, replica in np.argwhere(np.isfinite(ends)):
        after = data.time.values >= ends[step, replica]
        assert np.isnan(data.total_energy.values[step, replica, after]).all()
        assert np.isfinite(data.total_energy.values[step, replica, ~after]).all()
    found = findings(data)
    assert found["drift"].outcome is Outcome.EXPLODED
    assert found["drift"].interval.n == 4 - n_lost
    assert found["drift"].reason == f"{n_lost} of 4 replicas exploded and are left out"
    first = found["explosion_time"]
    assert first.outcome is Outcome.EXPLODED
    assert first.interval.value == np.nanmin(ends[0])
    assert first.interval.low == pytest.approx(first.interval.high - 0.008)


class Fragile(Calculator):
    """A harmonic crystal as an ASE calculator; nothing of it is a number once an atom is beyond a distance (Å)."""

    implemented_properties = ("energy", "forces")

    def __init__(self, sites, limit):
        super().__init__()
        self.sites, self.limit = sites.positions, limit

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = atoms.positions - self.sites
        broken = np.nan if (away**2).sum(1).max() > self.limit**2 else 1.0
        self.results = {"energy": broken * STIFFNESS / 2 * (away**2).sum(), "forces": -broken * STIFFNESS * away}


@pytest.mark.parametrize("channel", ["gradient", "direct"])
def test_an_ase_replica_that_is_no_number_in_mid_run_leaves_the_others(crystal, channel):
    model = ASEModel(Fragile(crystal.sites, 0.26), channel=channel)
    data = measure(model, Scheme(channel), crystal, SETTINGS, silent)
    lost = np.isfinite(data.explosion_time.values)
    assert 0 < lost[0].sum() < 4
    assert (data.explosion_time.values[lost] > 0).all()
    assert np.isfinite(data.total_energy.values[~lost]).all()
    assert data.attrs["outcome"] == "exploded"
    assert findings(data)["drift"].interval.n == 4 - lost[0].sum()


def test_an_ase_calculator_that_is_no_number_from_the_start_is_no_explosion(crystal):
    model = ASEModel(Fragile(crystal.sites, 0.0))
    with pytest.raises(InvalidPredictionError, match="forces of the start are not all finite in system 0"):
        measure(model, Scheme("gradient"), crystal, SETTINGS, silent)


def test_a_replica_lost_in_equilibration_exploded_at_once(crystal):
    hot = Wrapped(
        toy(crystal, "harmonic"),
        lambda state, prediction: Prediction(
            prediction.energy, {key: -300 * force for key, force in prediction.forces.items()}
        ),
    )
    settings = dataclasses.replace(SETTINGS, equilibration_time=0.1)
    data = measure(hot, Scheme("gradient"), crystal, settings, silent)
    assert (data.explosion_time.values == 0).all()
    found = findings(data)
    assert all(finding.outcome is Outcome.EXPLODED for finding in found.values())
    assert found["drift"].interval is None
    assert found["drift"].reason == "4 of 4 replicas exploded"
    assert found["explosion_time"].interval.value == 0.0


def test_a_model_that_is_broken_from_the_start_is_no_explosion(crystal):
    broken = Wrapped(
        toy(crystal, "harmonic"),
        lambda state, prediction: Prediction(
            prediction.energy, {key: force * torch.nan for key, force in prediction.forces.items()}
        ),
    )
    with pytest.raises(InvalidPredictionError, match="not all finite"):
        measure(broken, Scheme("gradient"), crystal, SETTINGS, silent)


def test_progress_goes_from_zero_to_one(crystal):
    seen = []
    settings = dataclasses.replace(SETTINGS, duration=0.016, equilibration_time=0.02)
    measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, settings, seen.append)
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert seen[-1] == pytest.approx(1.0)


def synthetic(n_replicas=4):
    """Energies (meV/atom) 0.5 t + 0.03 dt^2 t + 0.1 dt^2 (-1)^k, temperatures 500 + 3 t, known exactly."""
    time = np.arange(0, 1.0001, 0.01)
    steps = np.array([1.0, 0.5, 2.0])
    flip = 0.1 * (-1.0) ** np.arange(len(time))
    drift = 0.5 + 0.03 * steps**2
    energy = (drift[:, None] * time + steps[:, None] ** 2 * flip)[:, None, :] * 1e-3
    shift = np.arange(n_replicas)[None, :, None]
    dims = ("time_step", "replica", "time")
    full = np.broadcast_to
    shape = (3, n_replicas, len(time))
    return xr.Dataset(
        {
            "total_energy": (dims, full(energy - 4.0 + shift, shape)),
            "kinetic_energy": (dims, full(0.06 + 0.002 * np.sign(flip), shape)),
            "temperature": (dims, full(500 + 3 * time, shape)),
            "explosion_time": (dims[:2], np.full((3, n_replicas), np.nan)),
        },
        coords={"time_step": steps, "time": time},
    )


def test_judge_reads_what_was_put_in():
    found = findings(synthetic())
    expected = {
        "drift": 0.53,
        "temperature_drift": 3.0,
        "fluctuation": 0.1,
        "drift_ratio": 0.53 / 2.0,
        "drift_dt0": 0.5,
        "order": 2.0,
        "explosion_time": 1.0,
    }
    assert list(found) == list(expected)
    for metric, value in expected.items():
        # 101 samples: the alternating term leaks 1 % into standard deviations
        assert found[metric].interval.value == pytest.approx(value, rel=0.015), metric
        assert found[metric].interval.n == 4


def test_slopes_are_judged_by_the_function_that_is_calibrated():
    data = synthetic()
    data["total_energy"] = data.total_energy + 0.001 * data.replica * data.time
    data["temperature"] = data.temperature + 2.0 * data.replica * data.time
    found, main = findings(data), data.isel(time_step=0)
    energy = slope_interval(main.time, main.total_energy)
    assert found["drift"].interval == Interval(*(1e3 * x for x in (energy.value, energy.low, energy.high)), 4)
    assert found["temperature_drift"].interval == slope_interval(main.time, main.temperature)
    assert found["temperature_drift"].interval.high > found["temperature_drift"].interval.value


def test_judge_never_makes_a_single_replica_certain():
    found = findings(synthetic(1))
    assert (found["drift"].interval.low, found["drift"].interval.high) == (-np.inf, np.inf)


def test_judge_needs_two_time_steps_for_the_order():
    found = findings(synthetic().isel(time_step=[0]))
    assert found["order"].interval is None
    assert found["drift_dt0"].reason == "one time step only"
    assert found["drift"].interval is not None


def test_energy_that_never_moves_has_no_order():
    data = synthetic()
    data["total_energy"] = data.total_energy * 0
    assert findings(data)["order"].interval is None
    assert findings(data)["drift"].interval.value == 0


def test_judging_imports_no_torch():
    code = "import sys; from conservbench.protocols.nve import judge, settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_card_names_the_metrics_that_are_judged():
    card = find_protocol("nve")
    assert {key: metric.unit for key, metric in card.metrics.items()} == UNITS
    assert card.systems == ("si-64", "si-liquid-64")
    for tier in ("smoke", "quick", "standard"):
        settings = build(Settings, card.settings(tier), tier)
        assert settings.time_steps[0] == 1.0
        # an MTS row with stride 8 fits every time step
        assert all(settings.sample_every % (8 * step) == 0 for step in settings.time_steps)


def test_smoke_tier_of_silicon_takes_seconds():
    settings = build(Settings, find_protocol("nve").settings("smoke"), "smoke")
    begin = time.perf_counter()
    data = measure(StillingerWeber(), Scheme("gradient"), find_system("si-64"), settings, silent)
    assert time.perf_counter() - begin < 10
    found = findings(data)
    assert data.attrs["outcome"] == "completed"
    assert abs(found["drift"].interval.value) < 1.0
    assert data.temperature.values.mean() == pytest.approx(1000, abs=200)


def test_settling_is_left_out_of_the_record(crystal):
    """What settles is the same trajectory: its record only begins later."""
    whole = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, SETTINGS, silent)
    settled = measure(
        toy(crystal, "harmonic"),
        Scheme("gradient"),
        crystal,
        dataclasses.replace(SETTINGS, settling_time=0.016),
        silent,
    )
    np.testing.assert_array_equal(settled.total_energy.values[..., :-2], whole.total_energy.values[..., 2:])
