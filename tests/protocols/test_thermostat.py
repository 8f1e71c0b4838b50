"""The thermostat protocol end to end: toy fields with answers on paper, explosions, no energy, settings and card."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from ase.build import bulk

from conservbench.cards import build, find_protocol
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.toy import Field, ToyModel, langevin_power, langevin_temperatures
from conservbench.outcome import Outcome
from conservbench.protocols.crystals import is_crystal
from conservbench.protocols.thermostat.judge import UNITS, compare, judge
from conservbench.protocols.thermostat.measure import measure
from conservbench.protocols.thermostat.settings import Bath, Settings
from conservbench.result import read_result, write_result
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.statistics import Interval
from conservbench.systems import System, find_system
from conservbench.units import BOLTZMANN, FEMTOSECOND, PICOSECOND

STIFFNESS, CURL, KELVIN = 8.0, 0.4, 500.0
SWIRL = Field("swirl", STIFFNESS, CURL)
LANGEVIN = (Bath("langevin", 100.0), Bath("langevin", 10.0))
BATHS = (*LANGEVIN, Bath("svr", 10.0), Bath("nose-hoover", 50.0))
SETTINGS = Settings(
    baths=BATHS,
    replicas=40,
    duration=0.64,
    time_step=2.0,
    sample_every=16.0,
    equilibration_time=0.1,
    settling_time=0.1,
    longest_lag=0.32,
    rdf_range=3.0,
)
BRIEF = dataclasses.replace(SETTINGS, replicas=4, duration=0.064, longest_lag=0.032, equilibration_time=0.0)


def silent(fraction):
    pass


def thermal(sites, name="toy-8", kelvin=KELVIN, stiffness=STIFFNESS, n=48):
    """A system with thermal snapshots of its harmonic crystal, so that energies have equipartition from the start."""
    start = from_atoms([sites] * n)
    # with a momentum p of mass m goes a displacement p / sqrt(m k), without the mean that no spring holds
    moves = draw_momenta(start, kelvin, Noise(77)) / (start.masses * stiffness).sqrt()[:, None]
    moves = moves - (start.sum(moves) / start.counts[:, None])[start.system]
    snapshots = []
    for move in moves.numpy().reshape(n, len(sites), 3):
        snapshots.append(sites.copy())
        snapshots[-1].positions += move
    return System(name, 1, "harmonic crystal", kelvin, sites, tuple(snapshots), "none", "none")


@pytest.fixture(scope="module")
def crystal():
    return thermal(bulk("Si", cubic=True, a=5.431))


@pytest.fixture(scope="module")
def harmonic(crystal):
    return measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, SETTINGS, silent)


@pytest.fixture(scope="module")
def swirl(crystal):
    settings = dataclasses.replace(SETTINGS, baths=LANGEVIN, duration=1.28, settling_time=0.4)
    return measure(ToyModel(SWIRL, crystal.sites), Scheme("direct"), crystal, settings, silent)


def toy(crystal, name, curl=0.0):
    return ToyModel(Field(name, STIFFNESS, curl), crystal.sites)


def findings(data):
    return {finding.metric: finding for finding in judge(data)}


def near(interval, value, widths=2.0):
    """Within twice its 95 % interval: about four sigma for 40 replicas, false alarm 1e-4."""
    return abs(interval.value - value) < widths * (interval.high - interval.low) / 2


def test_a_harmonic_crystal_is_at_the_temperature_and_takes_nothing(harmonic):
    found = findings(harmonic)
    for bath in (bath.name for bath in BATHS):
        for metric in ("temperature_error", "equipartition", "injected_power"):
            assert near(found[f"{metric}_{bath}"].interval, 0.0), (metric, bath)
        # not only wide intervals: energies of a replica scatter by sqrt(2 / 21), and they are means of 40
        error = found[f"temperature_error_{bath}"].interval
        assert error.high - error.low < 4 * KELVIN * np.sqrt(2 / 21 / 40)
        assert abs(found[f"injected_power_{bath}"].interval.value) < 0.3
        # Kolmogorov-Smirnov: false alarm 1e-4 each
        assert found[f"kinetic_distribution_{bath}"].interval.value > 1e-4
        assert found[f"diffusion_{bath}"].outcome is Outcome.UNSUPPORTED
        assert found[f"species_split_{bath}"].reason == "the system has one species"
    assert abs(found["steady_error_svr_10"].interval.value) < 0.05
    explosion = found["explosion_time"]
    assert (explosion.interval.value, explosion.interval.high, explosion.interval.n) == (0.64, np.inf, 40)
    assert harmonic.attrs["outcome"] == "completed"
    assert [harmonic.attrs[key] for key in ("n_atoms", "n_dof", "is_crystal")] == [8, 21.0, "true"]


def test_a_swirl_puts_in_the_power_on_paper(crystal, swirl):
    """The stationary state under a Langevin bath in closed form: power, temperature, and one by the other."""
    found = findings(swirl)
    crystal_of = (crystal.sites.numbers, crystal.sites.get_masses())
    for bath, expected in zip(LANGEVIN, (24.6, 0.23), strict=True):
        tau = bath.tau * FEMTOSECOND
        error = langevin_temperatures(SWIRL, *crystal_of, KELVIN, tau)[14] - KELVIN
        assert error == pytest.approx(expected, rel=0.01)
        power = 1e3 * langevin_power(SWIRL, *crystal_of, KELVIN, tau) * PICOSECOND / 8
        measured = found[f"injected_power_{bath.name}"].interval
        assert near(measured, power)
        # a step of 2 fs makes displacements 0.3 % too large
        assert near(found[f"steady_error_{bath.name}"].interval, error)
        assert near(found[f"temperature_error_{bath.name}"].interval, error)
    strong = found["injected_power_langevin_100"]
    assert strong.interval.low > 0.5 * strong.interval.value
    assert strong.outcome is Outcome.COMPLETED


def test_a_bath_that_is_too_weak_has_no_steady_state(crystal):
    """s tau >= sqrt(m k) at tau = 1 ps: the temperature rises for ever, and the findings say so."""
    settings = dataclasses.replace(SETTINGS, baths=(Bath("langevin", 1000.0),), replicas=16)
    model = ToyModel(SWIRL, crystal.sites)
    found = findings(measure(model, Scheme("direct"), crystal, settings, silent))
    error = found["temperature_error_langevin_1000"]
    assert error.interval.low > 0
    assert error.outcome is Outcome.NOT_CONVERGED
    assert error.reason.startswith("no steady state: the temperature still rises by")
    assert found["injected_power_langevin_1000"].interval.low > 50
    # what such a power would make of a steady state
    assert found["steady_error_langevin_1000"].interval.low > error.interval.high
    hot = dataclasses.replace(settings, replicas=2, explosion_temperature=1000.0, explosion_factor=1.2)
    lost = measure(model, Scheme("direct"), crystal, hot, silent)
    assert lost.attrs["outcome"] == "exploded"
    assert "of 2 replicas exploded under langevin 1000" in lost.attrs["outcome_reason"]


def test_heat_gives_the_power_of_a_model_without_an_energy(crystal, swirl):
    without = findings(swirl.drop_vars(["conserved_energy", "potential_energy"]))[
        "injected_power_langevin_100"
    ].interval
    power = 1e3 * langevin_power(SWIRL, crystal.sites.numbers, crystal.sites.get_masses(), KELVIN, 100 * FEMTOSECOND)
    assert near(without, power * PICOSECOND / 8)
    # with the energy the power of the same trajectories is known better
    exact = findings(swirl)["injected_power_langevin_100"].interval
    assert exact.high - exact.low < without.high - without.low
    model = Wrapped(ToyModel(SWIRL, crystal.sites), lambda state, prediction: Prediction(None, prediction.forces))
    data = measure(model, Scheme("direct"), crystal, BRIEF, silent)
    assert not {"conserved_energy", "potential_energy"} & set(data)
    assert findings(data)["injected_power_svr_10"].interval is not None


def test_species_are_as_hot_as_on_paper():
    """A curl on carbon makes carbon hot; a global bath takes for it from silicon, and shows nearly the right mean."""
    carbide = thermal(bulk("SiC", "zincblende", a=4.36, cubic=True), "sic-8", 600.0, 12.0)
    field = Field("swirl", 12.0, 0.55, "C")
    settings = dataclasses.replace(
        SETTINGS, baths=(LANGEVIN[0], Bath("svr", 10.0)), replicas=24, duration=0.8, settling_time=0.4
    )
    found = findings(measure(ToyModel(field, carbide.sites), Scheme("direct"), carbide, settings, silent))
    paper = langevin_temperatures(field, carbide.sites.numbers, carbide.sites.get_masses(), 600.0, 100 * FEMTOSECOND)
    for symbol, number in (("C", 6), ("Si", 14)):
        assert near(found[f"temperature_error_langevin_100_{symbol}"].interval, paper[number] - 600.0)
    farthest = found["species_error_langevin_100"]
    assert farthest.reason == "of C"
    assert farthest.interval == found["temperature_error_langevin_100_C"].interval
    split = found["species_split_langevin_100"].interval
    assert near(split, paper[6] - paper[14])
    assert split.low > 0
    whole, split = (found[f"{metric}_svr_10"].interval for metric in ("temperature_error", "species_split"))
    assert split.low > 5 * abs(whole.value)
    assert found["temperature_error_svr_10_C"].interval.low > 0 > found["temperature_error_svr_10_Si"].interval.high
    # the mean is as wrong as the bath must have it, to take out the power
    steady = found["steady_error_svr_10"].interval
    assert steady.low > 0
    assert near(Interval(whole.value - steady.value, whole.low - steady.high, whole.high - steady.low, 40), 0.0)


def test_structure_and_displacement_can_be_those_of_one_element():
    """Carbons are half of zinc blende, a face-centred cubic lattice of their own: 12 neighbours at 3.08 Å."""
    carbide = thermal(bulk("SiC", "zincblende", a=4.36, cubic=True), "sic-8", 600.0, 12.0)
    settings = dataclasses.replace(BRIEF, baths=LANGEVIN[:1], replicas=8, rdf_range=4.0)
    model = ToyModel(Field("harmonic", 12.0, 0.0), carbide.sites)
    whole, carbons = (
        measure(model, Scheme("gradient"), carbide, dataclasses.replace(settings, element=element), silent)
        for element in ("", "C")
    )
    # the same dynamics
    np.testing.assert_array_equal(whole.temperature, carbons.temperature)

    def neighbours(data, n_atoms, low, high):
        edges = settings.rdf_width * np.arange(settings.n_bins + 1)
        shells = 4 / 3 * np.pi * np.diff(edges**3)
        inside = (data.r.values > low) & (data.r.values < high)
        return n_atoms / 4.36**3 * float((data.rdf.mean(("bath", "replica")).values * shells)[inside].sum())

    assert neighbours(whole, 8, 0.0, 2.4) == pytest.approx(4.0, rel=0.01)
    assert neighbours(carbons, 4, 0.0, 2.4) == 0.0
    assert neighbours(carbons, 4, 2.4, 3.8) == pytest.approx(12.0, rel=0.01)
    for data in (whole, carbons):
        assert float(data.mean_squared_displacement.sel(lag=0).max()) == 0.0
    moved = (float(data.mean_squared_displacement.isel(lag=1).mean()) for data in (whole, carbons))
    # within 16 fs the lighter atoms go further than all do
    assert next(moved) < next(moved)


def test_bands_of_modes_share_the_temperature_between_them(harmonic):
    assert dict(harmonic.band_temperature.sizes) == {"bath": 4, "replica": 40, "time": 41, "band": 3}
    np.testing.assert_allclose(harmonic.band_temperature.mean("band"), harmonic.temperature, rtol=1e-10)
    omega = np.sqrt(STIFFNESS / 28.085) / (2 * np.pi) * PICOSECOND
    np.testing.assert_allclose(harmonic.frequency, omega, rtol=1e-6)


def test_equipartition_is_the_high_band_less_the_low_one(harmonic):
    hot = harmonic.assign(band_temperature=harmonic.band_temperature + xr.DataArray([10.0, 0.0, 40.0], dims="band"))
    before, after = (findings(data)["equipartition_svr_10"].interval for data in (harmonic, hot))
    assert after.value - before.value == pytest.approx(30.0)


def test_mts_is_conservative_under_baths(crystal):
    settings = dataclasses.replace(SETTINGS, baths=BATHS[::2], time_step=1.0, replicas=8, duration=0.32)
    mts = findings(measure(toy(crystal, "two-headed", CURL), Scheme("mts", 4), crystal, settings, silent))
    direct = findings(measure(toy(crystal, "two-headed", CURL), Scheme("direct"), crystal, settings, silent))
    for bath in ("langevin_100", "svr_10"):
        assert abs(mts[f"injected_power_{bath}"].interval.value) < 1.5
        assert direct[f"injected_power_{bath}"].interval.low > 5


def test_the_same_dynamics_is_no_distance_from_its_twin(crystal, harmonic):
    """The twin has the same trajectories; another seed is another sample of the same ensemble."""
    assert all(finding.interval.value == 0 for finding in compare(harmonic, harmonic))
    settings = dataclasses.replace(SETTINGS, baths=LANGEVIN[:1], seed=5)
    again = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, settings, silent)
    stiff = ToyModel(Field("harmonic", 2 * STIFFNESS), crystal.sites)
    other = measure(stiff, Scheme("gradient"), crystal, settings, silent)
    same, unlike = ({each.metric: each.interval for each in compare(one, harmonic)} for one in (again, other))
    for metric in ("rdf_distance_langevin_100", "vdos_distance_langevin_100"):
        assert near(same[metric], 0.0)
        assert unlike[metric].low > same[metric].high
    assert near(same["rdf_peak_shift_langevin_100"], 0.0)


TWICE = dataclasses.replace(
    SETTINGS,
    baths=(LANGEVIN[0], Bath("svr", 10.0)),
    ensemble_baths=("langevin_100", "svr_10"),
    second_temperature=1.25,
    settling_time=0.4,
    replicas=20,
)


def test_energies_at_two_temperatures_are_those_of_one_ensemble(crystal):
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, TWICE, silent)
    assert dict(data.second_potential_energy.sizes) == {"ensemble_bath": 2, "replica": 20, "time": 41}
    assert data.attrs["second_temperature"] == 1.25 * KELVIN
    found = findings(data)
    for bath in TWICE.ensemble_baths:
        # sqrt(2 / 21) of scatter a sample, 130 and more that are independent; four sigma: false alarm 1e-4
        energy = 8 * data.second_potential_energy.sel(ensemble_bath=bath).mean() / (10.5 * BOLTZMANN)
        assert float(energy) == pytest.approx(1.25 * KELVIN, rel=4 * np.sqrt(2 / 21 / 130))
        deviation = found[f"ensemble_{bath}"]
        # false alarm 0.3 % each
        assert deviation.interval.value < 3.0
        assert deviation.interval.low == deviation.interval.high == deviation.interval.value
        assert deviation.outcome is Outcome.COMPLETED
    # what is measured at the temperature itself is none the wiser
    once = dataclasses.replace(TWICE, second_temperature=0.0, replicas=4, duration=0.064, longest_lag=0.032)
    again = dataclasses.replace(once, second_temperature=1.25)
    one, other = (
        measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, each, silent) for each in (once, again)
    )
    second = ["second_potential_energy", "second_explosion_time"]
    assert set(other.data_vars) - set(one.data_vars) == set(second)
    del other.attrs["second_temperature"]
    assert one.identical(other.drop_vars(second))
    unmeasured = findings(one)["ensemble_svr_10"]
    assert (unmeasured.outcome, unmeasured.reason) == (
        Outcome.UNSUPPORTED,
        "this tier has no runs at a second temperature",
    )
    assert "ensemble_langevin_10" not in findings(one)


def test_a_model_without_an_energy_has_no_second_temperature(crystal):
    model = Wrapped(ToyModel(SWIRL, crystal.sites), lambda state, prediction: Prediction(None, prediction.forces))
    brief = dataclasses.replace(TWICE, replicas=2, duration=0.064, longest_lag=0.032, settling_time=0.0)
    seen = []
    data = measure(model, Scheme("direct"), crystal, brief, seen.append)
    assert "second_potential_energy" not in data
    assert "second_temperature" not in data.attrs
    assert seen[-1] == pytest.approx(1.0)
    deviation = findings(data)["ensemble_svr_10"]
    assert (deviation.interval, deviation.outcome) == (None, Outcome.UNSUPPORTED)
    assert deviation.reason == "the model has no energy"


def test_explosions_at_the_second_temperature_are_told(crystal):
    """Twice as hot, some leave the well that the replicas at the temperature itself stay in."""
    settings = dataclasses.replace(
        TWICE, replicas=4, duration=0.16, longest_lag=0.032, equilibration_time=0.0, settling_time=0.0
    )
    settings = dataclasses.replace(
        settings, second_temperature=4.0, baths=settings.baths[1:], ensemble_baths=("svr_10",)
    )
    seen = []
    data = measure(fragile(crystal, 0.45), Scheme("gradient"), crystal, settings, seen.append)
    assert seen[-1] == pytest.approx(1.0)
    assert data.explosion_time.isnull().all()
    lost = int(data.second_explosion_time.notnull().sum())
    assert lost > 0
    assert data.attrs["outcome"] == "exploded"
    assert data.attrs["outcome_reason"] == f"{lost} of 4 replicas exploded under svr 10 at 2000 K"
    found = findings(data)
    assert found["temperature_error_svr_10"].outcome is Outcome.COMPLETED
    assert found["ensemble_svr_10"].outcome in (Outcome.EXPLODED, Outcome.UNSUPPORTED)


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


def fragile(crystal, limit):
    """The harmonic crystal, repulsive for replicas with an atom too far off its site (Å)."""
    inner = toy(crystal, "harmonic")

    def change(state, prediction):
        far = inner.displacements(state, state.positions, state.cell).square().sum(1) > limit**2
        broken = state.sum(far.double())[state.system, None] > 0
        pulls = {key: torch.where(broken, -1e4 * force, force) for key, force in prediction.forces.items()}
        return Prediction(prediction.energy, pulls)

    return Wrapped(inner, change)


def test_explosions_are_recorded_and_left_out(crystal):
    settings = dataclasses.replace(
        SETTINGS, baths=BATHS[::2], replicas=8, duration=0.32, settling_time=0.0, equilibration_time=0.0
    )
    data = measure(fragile(crystal, 0.3), Scheme("gradient"), crystal, settings, silent)
    lost = np.isfinite(data.explosion_time.values)
    assert 0 < lost[0].sum() < 8
    assert data.attrs["outcome"] == "exploded"
    assert f"{lost[0].sum()} of 8 replicas exploded under langevin 100" in data.attrs["outcome_reason"]
    found = findings(data)
    error = found["temperature_error_langevin_100"]
    assert error.outcome is Outcome.EXPLODED
    assert error.interval.n == 8 - lost[0].sum()
    assert error.reason == f"{lost[0].sum()} of 8 replicas exploded and are left out"
    assert found["explosion_time"].interval.value == np.nanmin(data.explosion_time.values)
    assert found["explosion_time"].outcome is Outcome.EXPLODED
    for name in ("rdf", "velocity_autocorrelation", "mean_squared_displacement"):
        broken = np.isnan(data[name].values).all(-1)
        np.testing.assert_array_equal(broken, lost)
    assert compare(data, data)[0].outcome is Outcome.EXPLODED


def test_replicas_that_are_all_lost_before_the_record_are_an_outcome(crystal):
    settings = dataclasses.replace(BRIEF, equilibration_time=0.2)
    data = measure(fragile(crystal, 0.05), Scheme("gradient"), crystal, settings, silent)
    assert (data.explosion_time.values == 0).all()
    for name in ("species_temperature", "band_temperature", "rdf"):
        assert np.isnan(data[name].values).all()
    found = findings(data)
    error = found["temperature_error_svr_10"]
    assert (error.interval, error.outcome, error.reason) == (None, Outcome.EXPLODED, "4 of 4 replicas exploded")
    assert found["explosion_time"].interval.value == 0.0
    assert all(each.outcome is Outcome.EXPLODED for each in compare(data, data))


def test_a_model_that_is_broken_from_the_start_is_no_explosion(crystal):
    broken = Wrapped(
        toy(crystal, "harmonic"),
        lambda state, prediction: Prediction(
            prediction.energy, {key: force * torch.nan for key, force in prediction.forces.items()}
        ),
    )
    with pytest.raises(InvalidPredictionError, match="are not all finite"):
        measure(broken, Scheme("gradient"), crystal, BRIEF, silent)


def test_what_a_model_or_a_scheme_does_not_have_is_unsupported(crystal):
    with pytest.raises(UnsupportedError, match="the model has no direct forces"):
        measure(toy(crystal, "harmonic"), Scheme("direct"), crystal, BRIEF, silent)
    with pytest.raises(UnsupportedError, match=r"stride 3 x 2 fs does not divide sample_every = 16 fs"):
        measure(toy(crystal, "two-headed", CURL), Scheme("mts", 3), crystal, BRIEF, silent)


def test_results_are_the_same_again_and_survive_a_file(crystal, tmp_path):
    one, other = (measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, BRIEF, silent) for _ in range(2))
    assert one.identical(other)
    write_result(one, tmp_path / "cell.nc")
    read = read_result(tmp_path / "cell.nc")
    for before, after in zip(judge(one), judge(read), strict=True):
        assert before == after
    for name, variable in {**one.data_vars, **one.coords}.items():
        assert {"units", "long_name"} <= set(variable.attrs), name


def test_baths_do_not_see_each_other(crystal):
    both = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, BRIEF, silent)
    alone = dataclasses.replace(BRIEF, baths=BATHS[:1])
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, alone, silent)
    np.testing.assert_array_equal(data.temperature[0], both.temperature[0])
    # all from the same starts, under noise of their own
    starts = both.kinetic_energy.isel(time=0)
    assert float(np.abs(starts[0] - starts[1]).min()) > 0


def test_progress_goes_from_zero_to_one(crystal):
    seen = []
    measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, BRIEF, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baths": ()}, r"baths are \[\]; expected one or more"),
        ({"baths": (BATHS[0], BATHS[0])}, "all different"),
        ({"replicas": 0}, "replicas is 0"),
        ({"chain_length": 0}, "chain_length is 0"),
        ({"time_step": 3.0}, "sample_every 16.0 fs is no multiple of the time step 3.0 fs"),
        ({"duration": 0.641}, "duration 0.641 ps is no multiple of sample_every 16.0 fs"),
        ({"duration": 0.016}, "fewer than 2 samples"),
        ({"duration": np.nan}, "duration is nan; expected a positive number"),
        ({"longest_lag": 1.0}, "longest_lag is 1.0; expected sample_every or more, the duration or less"),
        ({"longest_lag": 0.01}, "longest_lag is 0.01"),
        ({"rdf_width": 7.0}, "rdf_width 7.0 Å is above rdf_range 3.0 Å"),
        ({"settling_time": -1.0}, "settling_time is -1.0; expected 0 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"second_temperature": np.inf}, "second_temperature is inf; expected 0 or more"),
        ({"second_temperature": 1.0}, "second_temperature is 1; expected another temperature"),
        ({"ensemble_baths": ("svr_20",)}, r"ensemble_baths are \['svr_20'\]; expected some of \['langevin_100',"),
        ({"ensemble_baths": ("svr_10", "svr_10")}, "ensemble_baths are"),
        ({"element": "si"}, "element is 'si'; expected the symbol of an element"),
        ({"diffusive_after": -1.0}, "diffusive_after is -1.0; expected 0 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


@pytest.mark.parametrize("tau", [0.0, -1.0, np.inf, np.nan])
def test_a_bath_without_a_time_is_refused(tau):
    with pytest.raises(ValueError, match="tau is"):
        Bath("svr", tau)


def test_a_liquid_has_no_modes_and_a_crystal_no_diffusion():
    liquid = find_system("si-liquid-64")
    assert not is_crystal(liquid)
    for name in ("si-64", "sic-64"):
        assert is_crystal(find_system(name))


def test_judging_imports_no_torch():
    code = "import sys; from conservbench.protocols.thermostat import judge, settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_card_names_the_metrics_that_are_judged(crystal):
    card = find_protocol("thermostat")
    settings = build(Settings, card.settings("smoke"), "smoke")
    data = measure(toy(crystal, "harmonic"), Scheme("gradient"), crystal, settings, silent)
    judged = {finding.metric: finding.unit for finding in (*judge(data), *compare(data, data))}
    declared = {key: metric.unit for key, metric in card.metrics.items()}
    assert declared == judged
    assert {key for key, metric in card.metrics.items() if metric.twin} == {
        key for key in declared if key.startswith(("rdf", "vdos"))
    }
    assert sum(metric.headline for metric in card.metrics.values()) == 6
    # what the method names is cited
    for doi in ("10.1063/1.2408420", "10.1063/1.463940", "10.1371/journal.pone.0202764", "10.1021/ct300688p"):
        assert doi in card.bibtex
    assert all(any(key.startswith(metric) for metric in UNITS) for key in declared)
    for tier in ("smoke", "quick", "standard"):
        each = build(Settings, card.settings(tier), tier)
        assert (each.baths, each.ensemble_baths) == (settings.baths, ("langevin_100", "svr_10"))
        assert (each.second_temperature > 0) == (tier == "standard")
