"""Multiple time steps end to end: harmonic pairs whose resonances are on paper, synthetic series, explosions."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray as xr
from ase import Atoms
from ase.build import bulk

from conservbench.cards import build, find_model, find_protocol
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.leaderboard.number import spelled
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.load import load_model
from conservbench.models.toy import Field, ToyModel
from conservbench.models.two_models import TwoModels
from conservbench.outcome import Outcome
from conservbench.protocols.mts.judge import judge, speedup_in_theory, verdict_of
from conservbench.protocols.mts.measure import measure
from conservbench.protocols.mts.plots import plots
from conservbench.protocols.mts.settings import Settings
from conservbench.scheme import Scheme
from conservbench.scored import gate_of
from conservbench.state import from_atoms
from conservbench.statistics import Interval
from conservbench.systems import System, find_system
from conservbench.units import FEMTOSECOND

STIFFNESS, KELVIN, MASS = 8.0, 500.0, 28.085
SETTINGS = Settings(
    replicas=3,
    strides=(1, 2, 4),
    time_steps=(4.0,),
    duration=0.32,
    sample_every=32.0,
    look_every=8.0,
    equilibration_time=0.0,
    bath_time=0.064,
    rounds=2,
    drift_limit=0.26,
    temperature_limit=0.02,
    rdf_limit=5e-4,
)
MTS = Scheme("mts", 2)


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


def two_headed(crystal, curl=0.4):
    return ToyModel(Field("two-headed", STIFFNESS, curl), crystal.sites)


def pair(crystal, stiff):
    """A harmonic crystal whose fast force is another harmonic one."""
    slow, fast = (ToyModel(Field("harmonic", k), crystal.sites) for k in (STIFFNESS, stiff))
    return TwoModels(slow, fast, "gradient")


def findings(data):
    return {finding.metric: finding for finding in judge(data)}


def trace(stride, stiff, dt):
    """Trace of the propagator of one outer step of the pair (see the tests of r-RESPA); unstable beyond 2."""
    angle = math.acos(1.0 - 0.5 * stiff / MASS * dt**2)
    kick = stride * dt * (STIFFNESS - stiff) / MASS
    return 2.0 * math.cos(stride * angle) - kick * math.sin(stride * angle) * dt / math.sin(angle)


# end to end


def test_strides_explode_where_theory_says(crystal):
    """Half the period of the fast force is 66 fs, and one outer step, of 60 fs, is in the window below it."""
    stiff, dt, strides = 6.5, 4.0, (1, 2, 5, 15, 20)
    settings = dataclasses.replace(SETTINGS, strides=strides, duration=0.96, sample_every=240.0, look_every=60.0)
    data = measure(pair(crystal, stiff), MTS, crystal, settings, silent)
    unstable = [stride for stride in strides if abs(trace(stride, stiff, dt * FEMTOSECOND)) > 2.0]
    assert unstable == [15]
    lost = data.explosion_time.notnull().all("replica").isel(time_step=0)
    assert [stride for stride in strides if lost.sel(stride=stride)] == unstable
    assert data.attrs["outcome"] == "exploded"
    assert data.attrs["outcome_reason"] == "3 of 3 replicas exploded at stride 15 x 4 fs"
    found = findings(data)
    assert found["exploding_stride"].interval == Interval(15.0, 5.0, 15.0, 3)
    assert (found["drift_15"].interval, found["drift_15"].outcome) == (None, Outcome.EXPLODED)
    assert verdict_of(data.isel(time_step=0), 15) == ("outside", "3 of 3 replicas exploded")
    assert found["largest_stride"].interval.high <= 5.0


def test_a_corrected_curl_changes_nothing_that_a_stride_does_not(crystal):
    """The pair of equal harmonic forces is velocity Verlet at every stride; the curl adds terms of its second order."""
    alike = dataclasses.replace(SETTINGS, look_every=16.0)
    still = findings(measure(two_headed(crystal, 0.0), MTS, crystal, alike, silent))
    for stride in (2, 4):
        assert still[f"temperature_{stride}"].interval.value == pytest.approx(0.0, abs=1e-9)
        assert still[f"rdf_{stride}"].interval.value == pytest.approx(0.0, abs=1e-12)
        assert still[f"drift_{stride}"].interval.value == pytest.approx(still["drift_1"].interval.value, abs=1e-8)
    found = findings(measure(two_headed(crystal), MTS, crystal, SETTINGS, silent))
    # (w M dt)^2 s / k ~ 0.02 of the temperature
    assert 0 < abs(found["temperature_4"].interval.value) < 0.02 * KELVIN
    # the swirl alone heats by 2 g T, g = s / 2 w m: 13 K a fs/10; here nothing is left of it
    assert abs(found["drift_4"].interval.value) < 10.0


def test_published_toy_passes_at_every_stride():
    """w M dt = 1.6 at stride 32, the half period is at 62."""
    card = find_model("swirl-mts8")
    system = find_system("si-64")
    protocol = find_protocol("mts")
    changes = {"duration": 0.096, "settling_time": 0.0, "bath_time": 0.032, "bath_settling_time": 0.0, "rounds": 1}
    settings = build(Settings, {**protocol.settings("quick"), **changes}, "here")
    data = measure(load_model(card, system), card.scheme, system, settings, silent)
    found = findings(data)
    assert found["largest_stride"].interval == Interval(32.0, 32.0, math.inf, 4)
    assert set(found) == set(protocol.metrics)
    assert all(found[key].unit == metric.unit for key, metric in protocol.metrics.items())
    assert data.attrs["outcome"] == "completed"


def test_baths_hold_their_temperature_at_the_stride_of_the_card(crystal):
    """Means over eight replicas; twice the 95 % interval has a false-alarm rate of 0.2 % (t of 7 degrees)."""
    settings = dataclasses.replace(
        SETTINGS, replicas=8, strides=(1,), duration=0.064, bath_time=3.2, bath_settling_time=0.2, rounds=1, seed=3
    )
    data = measure(two_headed(crystal), Scheme("mts", 4), crystal, settings, silent)
    assert data.bath_time.values[1] == pytest.approx(0.016)
    assert data.bath_time.values[-1] == pytest.approx(3.2)
    found = findings(data)
    for bath in ("svr", "langevin"):
        interval = found[f"temperature_{bath}"].interval
        assert abs(interval.value) < interval.high - interval.low
        assert interval.high - interval.low < 0.3 * KELVIN
        # 500 K of direct swirl would gain 100 meV/atom/ps here
        assert abs(found[f"drift_{bath}"].interval.value) < 2.0


def test_a_stride_of_the_card_that_fits_no_sample_is_run_all_the_same(crystal):
    data = measure(two_headed(crystal), Scheme("mts", 5), crystal, SETTINGS, silent)
    assert data.bath_time.values[1] == pytest.approx(0.020)
    assert data.bath_temperature.notnull().all()


def test_two_inner_time_steps_give_the_outer_step_of_the_finer(crystal):
    settings = dataclasses.replace(SETTINGS, time_steps=(4.0, 2.0), duration=0.096)
    found = findings(measure(two_headed(crystal, 0.0), MTS, crystal, settings, silent))
    assert found["outer_step_fine"].unit == "fs"
    assert found["outer_step_fine"].interval.high in (0.0, 2.0, 4.0, math.inf)
    alone = findings(measure(two_headed(crystal, 0.0), MTS, crystal, SETTINGS, silent))
    assert alone["outer_step_fine"].outcome is Outcome.UNSUPPORTED


def test_equal_seeds_give_equal_series(crystal):
    short = dataclasses.replace(SETTINGS, duration=0.064, equilibration_time=0.016)
    first, again = (measure(two_headed(crystal), MTS, crystal, short, silent) for _ in range(2))
    times = ["seconds_gradient", "seconds_direct", "seconds_mts"]
    assert first.drop_vars(times).identical(again.drop_vars(times))
    other = measure(two_headed(crystal), MTS, crystal, dataclasses.replace(short, seed=1), silent)
    assert not np.array_equal(first.temperature, other.temperature)
    # a replica is the same whatever others there are
    fewer = measure(two_headed(crystal), MTS, crystal, dataclasses.replace(short, replicas=2), silent)
    np.testing.assert_allclose(fewer.temperature, first.temperature[:, :, :2], rtol=1e-10)


def test_the_file_gives_the_same_findings_and_names_its_units(crystal, tmp_path):
    data = measure(two_headed(crystal), MTS, crystal, SETTINGS, silent)
    data.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    assert judge(xr.load_dataset(tmp_path / "cell.nc", engine="h5netcdf")) == judge(data)
    for variable in data.variables.values():
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]
    assert data.seconds_mts.shape == (2, 3)
    assert (data.seconds_gradient > 0).all()


def test_the_work_is_reported(crystal):
    seen = []
    measure(two_headed(crystal), MTS, crystal, SETTINGS, seen.append)
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] == 1.0
    # within each stride too
    assert len(seen) > 10 * len(SETTINGS.strides)


# models that cannot


class Wrapped:
    """A model of which something is changed."""

    elements = None
    differentiable = False
    labelled = True
    device = torch.device("cpu")

    def __init__(self, model, change):
        self.model, self.change = model, change
        self.channels = model.channels

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return self.change(state, self.model.evaluate(state, forces=forces))


def test_a_model_without_an_energy_has_temperatures_only(crystal):
    model = Wrapped(two_headed(crystal), lambda state, prediction: Prediction(None, prediction.forces))
    data = measure(model, MTS, crystal, SETTINGS, silent)
    found = findings(data)
    for metric in ("largest_stride", "speedup", "speedup_theory", "drift_1", "drift_4"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.UNSUPPORTED)
        assert "no energy" in found[metric].reason
    for metric in ("temperature_4", "rdf_4", "cost_ratio", "speedup_4", "temperature_svr"):
        assert found[metric].interval is not None
    assert "drift_svr" not in found


def test_a_replica_lost_before_keeps_its_number(crystal):
    """The field turns repulsive for the replica that starts with its first atom furthest along x."""
    inner = two_headed(crystal)
    marked = 1

    def change(state, prediction):
        first = torch.cat((torch.zeros(1, dtype=torch.bool), state.system.diff() == 0)).logical_not()
        start = crystal.snapshots[marked].positions[0]
        near = (state.positions[first] - torch.as_tensor(start)).norm(dim=1) < 0.02
        bad = near[state.system, None]
        return Prediction(
            prediction.energy, {key: torch.where(bad, 1e4, force) for key, force in prediction.forces.items()}
        )

    settings = dataclasses.replace(SETTINGS, equilibration_time=0.016)
    data = measure(Wrapped(inner, change), MTS, crystal, settings, silent)
    ends = data.explosion_time.values
    assert (ends[:, :, marked] == 0).all()
    assert np.isnan(np.delete(ends, marked, axis=2)).all()
    assert np.isnan(data.temperature.values[:, :, marked]).all()
    assert np.isfinite(np.delete(data.temperature.values, marked, axis=2)).all()
    assert data.attrs["outcome_reason"].count("1 of 3 replicas exploded") == 3 + 2
    found = findings(data)
    assert found["temperature_4"].interval.n == 2
    assert found["temperature_4"].outcome is Outcome.EXPLODED
    assert found["largest_stride"].interval == Interval(0.0, 0.0, 0.0, 3)
    assert found["largest_stride"].reason == "stride 1: 1 of 3 replicas exploded"


def test_all_lost_in_equilibration_is_an_outcome(crystal):
    hot = dataclasses.replace(SETTINGS, equilibration_time=0.016, explosion_temperature=1e-3, explosion_factor=1e-9)
    data = measure(two_headed(crystal), MTS, crystal, hot, silent)
    assert data.attrs["outcome"] == "exploded"
    found = findings(data)
    assert found["drift_1"].outcome is Outcome.EXPLODED
    assert found["temperature_svr"].outcome is Outcome.EXPLODED
    assert found["speedup"].reason.startswith("no stride is surely inside: stride 1: 3 of 3 replicas exploded")
    assert found["cost_ratio"].interval is not None


def test_what_a_model_or_system_lacks_is_unsupported(crystal):
    with pytest.raises(UnsupportedError, match="no direct forces"):
        measure(ToyModel(Field("harmonic", STIFFNESS), crystal.sites), MTS, crystal, SETTINGS, silent)
    broken = Wrapped(
        two_headed(crystal),
        lambda state, said: Prediction(said.energy, {k: f * torch.nan for k, f in said.forces.items()}),
    )
    with pytest.raises(InvalidPredictionError, match="not all finite"):
        measure(broken, MTS, crystal, SETTINGS, silent)


def test_a_molecule_is_judged_without_a_structure():
    molecule = Atoms("Si2", [[0, 0, 0], [0, 0, 2.2]], cell=[9, 9, 9])
    alone = System("molecule", 1, "two atoms", KELVIN, molecule, (molecule,), "none", "none")
    data = measure(ToyModel(Field("two-headed", STIFFNESS), molecule), MTS, alone, SETTINGS, silent)
    assert "rdf" not in data
    assert "r" not in data.coords
    found = {finding.metric: finding for finding in judge(data)}
    assert found["rdf_2"].outcome is Outcome.UNSUPPORTED
    assert found["rdf_2"].reason == "only periodic systems have a g(r)"
    assert found["drift_2"].interval is not None
    # nothing of what is left to look at is missing from the verdict
    assert "g(r)" not in verdict_of(data.isel(time_step=0), 2)[1]
    assert [plot.key for plot in plots(data)] == ["energy", "drift", "speedup"]


# the judge


def synthetic(drifts, temperatures=None, shifts=None, lost=(), time_steps=(1.0,)):
    """Series of six replicas whose slopes, temperatures and g(r) are what is asked for, with a spread of 1 %."""
    strides = [2**k for k in range(len(drifts))]
    temperatures = temperatures or [0.0] * len(drifts)
    shifts = shifts or [0.0] * len(drifts)
    spread = np.array([-2.0, -1.0, 0.0, 0.0, 1.0, 2.0])
    time = np.linspace(0.1, 1.0, 10)
    energy = np.array([[(d + 0.01 * e) * 1e-3 * time for e in spread] for d in drifts])
    kelvin = np.array([[np.full(10, 1000.0 + 50.0 * e + t) for e in spread] for t in temperatures])
    rdf = np.array([[[1.0, s, 1.0] for _ in spread] for s in shifts])
    ends = np.array([[0.5 if stride in lost else np.nan] * 6 for stride in strides])
    dims, many = ("time_step", "stride", "replica"), len(time_steps)
    rounds = np.arange(1.0, 8.0)
    return xr.Dataset(
        {
            "total_energy": ((*dims, "time"), np.stack([energy] * many)),
            "temperature": ((*dims, "time"), np.stack([kelvin] * many)),
            "rdf": ((*dims, "r"), np.stack([rdf] * many)),
            "explosion_time": (dims, np.stack([ends] * many)),
            # one round is not like another, but within a round all are
            "seconds_gradient": ("round", 3.0 * rounds),
            "seconds_direct": ("round", rounds),
            "seconds_mts": (("round", "stride"), np.array([[r * (1 + 2 / s) for s in strides] for r in rounds])),
        },
        coords={"time_step": list(time_steps), "stride": strides, "time": time},
        attrs={"target_temperature": 1000.0, "drift_limit": 0.26, "temperature_limit": 0.02, "rdf_limit": 5e-4},
    )


OPEN = ", the longest tried, is not excluded: a lower bound"


@pytest.mark.parametrize(
    ("changes", "value", "high", "reason"),
    [
        ({"drifts": [0, 0, 0, 0]}, 8, math.inf, f"stride 8{OPEN}"),
        ({"drifts": [0, 0, 0.25, 0]}, 2, math.inf, f"stride 4: drift unclear; stride 8{OPEN}"),
        ({"drifts": [0, 0, 0, 0.25]}, 4, math.inf, f"stride 8: drift unclear; stride 8{OPEN}"),
        ({"drifts": [0, 0, 0.25, 1]}, 2, 4, "stride 4: drift unclear; stride 8: drift outside"),
        ({"drifts": [0, 0, 1, 0]}, 2, 2, "stride 4: drift outside"),
        ({"drifts": [0, -1, 0, 0]}, 1, 1, "stride 2: drift outside"),
        ({"drifts": [1, 0, 0, 0]}, 0, 0, "stride 1: drift outside"),
        ({"drifts": [0.25, 0, 0, 0]}, 0, math.inf, f"stride 1: drift unclear; stride 8{OPEN}"),
        ({"drifts": [0, 0, 0], "temperatures": [0, 0, 21]}, 2, 2, "stride 4: temperature outside"),
        ({"drifts": [0, 0, 0], "temperatures": [0, 0, -19]}, 4, math.inf, f"stride 4{OPEN}"),
        # 0.03^2 / 2 = 4.5e-4, 0.04^2 / 2 = 8e-4
        ({"drifts": [0, 0, 0], "shifts": [0, 0, 0.03]}, 4, math.inf, f"stride 4{OPEN}"),
        ({"drifts": [0, 0, 0.25], "shifts": [0, 0, 0.04]}, 2, 2, "stride 4: g(r) outside"),
        ({"drifts": [0, 0, 0, 0], "lost": (4,)}, 2, 2, "stride 4: 6 of 6 replicas exploded"),
    ],
)
def test_largest_stride_is_the_last_that_is_surely_inside(changes, value, high, reason):
    finding = findings(synthetic(**changes))["largest_stride"]
    assert finding.interval == Interval(value, value, high, 6)
    assert finding.reason == reason


def test_a_largest_stride_that_nothing_excludes_is_written_as_a_bound():
    """Inside is more than 1 for sure; that stride 1 is the largest inside is open."""
    metric = find_protocol("mts").metrics["largest_stride"]
    for drifts, text, gate in (
        ([0, 0, 0], "≥ 4", "pass"),
        ([0, 0, 0.25], "≥ 2", "pass"),
        ([0, 0.25, 0.25], "≥ 1", "unclear"),
        ([0, 1, 0], "1", "fail"),
    ):
        finding = findings(synthetic(drifts))["largest_stride"]
        value, low, high = finding.interval.value, finding.interval.low, finding.interval.high
        assert spelled(value, low, high, metric.digits) == text
        assert gate_of(metric, finding.interval, finding.outcome) == gate


def test_speedups_are_medians_within_rounds():
    """Times of 3 and 1 for gradient and direct: F = 3, and 1 + 2/M for a stride, all exact within a round."""
    found = findings(synthetic([0, 0, 0, 1]))
    assert found["cost_ratio"].interval == Interval(3.0, 3.0, 3.0, 7)
    assert found["largest_stride"].interval.value == 4
    for metric in ("speedup", "speedup_theory", "speedup_4"):
        assert found[metric].interval == Interval(pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0), 7)
    assert found["speedup_8"].interval.value == pytest.approx(3.0 / 1.25)


def test_speedup_in_theory_has_its_limits():
    assert speedup_in_theory(2.66, 8) == pytest.approx(2.66 / (1 + 1.66 / 8))
    assert speedup_in_theory(7.0, 1) == 1.0
    assert speedup_in_theory(2.5, 10**9) == pytest.approx(2.5)
    assert speedup_in_theory(math.inf, 8) == 8.0
    assert speedup_in_theory(-math.inf, 8) == -math.inf


def test_finest_time_step_gives_an_outer_step():
    found = findings(synthetic([0, 0, 0, 1], time_steps=(1.0, 0.5)))
    assert found["outer_step_fine"].interval == Interval(2.0, 2.0, 2.0, 6)
    bound = findings(synthetic([0, 0, 0, 0], time_steps=(1.0, 0.5)))["outer_step_fine"]
    assert (bound.interval, bound.reason) == (Interval(4.0, 4.0, math.inf, 6), f"stride 8{OPEN}")
    assert found["exploding_stride"].interval == Interval(8.0, 8.0, math.inf, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"rounds": 0}, "rounds is 0"),
        ({"strides": ()}, r"strides is \[\]; expected 1 and what ascends from it"),
        ({"strides": (2, 4)}, "strides is"),
        ({"strides": (1, 4, 2)}, "strides is"),
        ({"strides": (1, 2, 2)}, "strides is"),
        ({"time_steps": ()}, "time_steps is"),
        ({"time_steps": (1.0, 1.0)}, "time_steps is"),
        ({"time_steps": (math.nan,)}, "time_steps is nan; expected a positive number"),
        ({"baths": ("svr", "svr")}, "baths is"),
        ({"strides": (1, 3)}, "sample_every 32.0 fs is no multiple of 3 steps of 4.0 fs"),
        ({"duration": 0.4}, "duration 0.4 ps is no multiple of sample_every 32.0 fs"),
        ({"duration": 0.032}, "fewer than 2 samples"),
        ({"drift_limit": 0.0}, "drift_limit is 0.0"),
        ({"rdf_limit": math.inf}, "rdf_limit is inf"),
        ({"bath_settling_time": -1.0}, "bath_settling_time is -1.0; expected 0 or more"),
        ({"rdf_range": 0.05}, "rdf_range 0.05 Å is below rdf_bin 0.1 Å"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_samples_of_the_energy_divide_the_record():
    settings = dataclasses.replace(SETTINGS, time_steps=(1.0,), strides=(1, 2, 8, 16, 32), look_every=5.0)
    assert [settings.look(outer) for outer in (1.0, 2.0, 8.0, 16.0, 32.0, 40.0)] == [4, 2, 1, 1, 1, 1]
