"""Judging series under heat baths that were made up, so that every number is known."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy import linalg, stats

from conservbench.observables.rdf_comparison import first_peak
from conservbench.outcome import Outcome
from conservbench.protocols.thermostat.judge import compare, decorrelated, inefficiency, judge, memory
from conservbench.units import BOLTZMANN

N_ATOMS, N_DOF, TARGET = 64, 189.0, 300.0
BATHS = {"langevin_1000": 1000.0, "langevin_10": 10.0, "svr_20": 20.0, "nose_hoover_100": 100.0}


def synthetic(n_replicas=4, seed=0, *, shift=0.0):
    """Water-like: 5 K too hot, hydrogen 20 K and oxygen -25 K off, 30 meV/atom/ps put in, D = 0.3, 0.1, 0.2, 0.3."""
    random = np.random.default_rng(seed)
    time, lag, r = np.arange(0, 4.001, 0.02), np.arange(0, 1.001, 0.02), np.arange(0.05, 6, 0.1)
    replica = np.linspace(-1, 1, n_replicas)[:, None]
    shape = (len(BATHS), n_replicas, len(time))
    series = ("bath", "replica", "time")
    kinetic = random.gamma(N_DOF / 2, BOLTZMANN * TARGET, shape) / N_ATOMS
    species = TARGET + np.array([20.0, -25.0]) + 0 * kinetic[..., None] + replica[..., None]
    slopes = np.array([0.3, 0.1, 0.2, 0.3])[:, None, None]
    peak = np.exp(-((r - 2.5 - shift) ** 2) / 0.1) + (r > 3)
    return xr.Dataset(
        {
            "temperature": (series, np.broadcast_to(TARGET + 5 + replica, shape)),
            "species_temperature": ((*series, "species"), species),
            "kinetic_energy": (series, kinetic),
            "heat": (series, np.broadcast_to(-(0.030 + 0.002 * replica) * time, shape)),
            "conserved_energy": (series, np.broadcast_to(7 + (0.031 + 0.001 * replica) * time, shape)),
            "mean_squared_displacement": (
                ("bath", "replica", "lag"),
                6 * slopes * lag * (1 + 0.1 * replica) + 0.4 * (lag > 0),
            ),
            "velocity_autocorrelation": (
                ("bath", "replica", "lag"),
                np.broadcast_to(np.cos(2 * np.pi * 8 * (1 + shift) * lag), (len(BATHS), n_replicas, len(lag)))
                + 0.01 * random.normal(size=(len(BATHS), n_replicas, len(lag))),
            ),
            "rdf": (
                ("bath", "replica", "r"),
                np.broadcast_to(peak, (len(BATHS), n_replicas, len(r)))
                + 0.01 * random.normal(size=(len(BATHS), n_replicas, len(r))),
            ),
            "explosion_time": (("bath", "replica"), np.full((len(BATHS), n_replicas), np.nan)),
        },
        coords={
            "bath": list(BATHS),
            "tau": ("bath", list(BATHS.values())),
            "kind": ("bath", ["langevin", "langevin", "svr", "nose-hoover"]),
            "time": time,
            "lag": lag,
            "r": r,
            "species": ["H", "O"],
            "mass": ("species", [1.008, 15.999]),
        },
        attrs={
            "n_atoms": N_ATOMS,
            "n_dof": N_DOF,
            "target_temperature": TARGET,
            "is_crystal": "false",
            "modes": "not a crystal: it has no normal modes",
        },
    )


def found(data):
    return {finding.metric: finding for finding in judge(data)}


def test_judge_reads_what_was_put_in():
    judged = found(synthetic())
    expected = {
        "temperature_error": 5.0,
        "temperature_error_H": 20.0,
        "temperature_error_O": -25.0,
        "species_split": 45.0,
        "injected_power": 31.0,
    }
    for metric, value in expected.items():
        for bath in BATHS:
            key = f"temperature_error_{bath}_{metric[-1]}" if metric[-2:] in ("_H", "_O") else f"{metric}_{bath}"
            assert judged[key].interval.value == pytest.approx(value), key
            assert judged[key].interval.n == 4
            assert judged[key].outcome is Outcome.COMPLETED
    for bath, value in zip(BATHS, (0.3, 0.1, 0.2, 0.3), strict=True):
        assert judged[f"diffusion_{bath}"].interval.value == pytest.approx(value)
    for bath, value in (("langevin_10", 1 / 3), ("svr_20", 2 / 3), ("nose_hoover_100", 1.0)):
        assert judged[f"diffusion_ratio_{bath}"].interval.value == pytest.approx(value)
        # every replica diffuses faster by the same factor under each bath: they are compared in pairs
        assert judged[f"diffusion_ratio_{bath}"].interval.high == pytest.approx(value)
    assert "diffusion_ratio_langevin_1000" not in judged
    assert judged["equipartition_svr_20"].reason == "not a crystal: it has no normal modes"
    assert judged["explosion_time"].interval.value == pytest.approx(4.0)


def test_heat_stands_in_for_the_conserved_quantity():
    judged = found(synthetic().drop_vars("conserved_energy"))
    assert judged["injected_power_svr_20"].interval.value == pytest.approx(30.0)


def test_the_steady_error_is_what_the_bath_needs_to_take_the_power_out():
    """31 meV/atom/ps: Langevin takes n_dof k_B / tau a kelvin, rescaling half of that; a chain needs no error."""
    judged = found(synthetic())
    kelvin = 0.031 * N_ATOMS / (N_DOF * BOLTZMANN)  # ps K
    assert judged["steady_error_langevin_1000"].interval.value == pytest.approx(kelvin)
    assert judged["steady_error_langevin_10"].interval.value == pytest.approx(0.01 * kelvin)
    assert judged["steady_error_svr_20"].interval.value == pytest.approx(2 * 0.02 * kelvin)
    assert "steady_error_nose_hoover_100" not in judged


def test_a_temperature_that_rises_is_no_steady_state_if_power_comes_in():
    data = synthetic()
    data["temperature"] = data.temperature + 40 * data.time * (data.bath == "langevin_1000")
    judged = found(data)
    error = judged["temperature_error_langevin_1000"]
    assert error.outcome is Outcome.NOT_CONVERGED
    assert error.reason == "no steady state: the temperature still rises by 40 K/ps"
    assert judged["temperature_error_langevin_10"].outcome is Outcome.COMPLETED
    data["conserved_energy"] = data.conserved_energy * 0
    assert found(data)["temperature_error_langevin_1000"].outcome is Outcome.COMPLETED


def test_kinetic_energies_are_tested_against_their_gamma_distribution():
    data = synthetic(seed=3)
    judged = found(data)
    # samples of 0.02 ps: 3 tau are 2 of them, 6 tau 6, 2 pi tau 32; each replica has 201
    for bath, stride in (("langevin_10", 2), ("svr_20", 6), ("nose_hoover_100", 32)):
        interval = judged[f"kinetic_distribution_{bath}"].interval
        # false alarm 1e-3 each
        assert interval.value > 1e-3
        assert interval.n == 4 * math.ceil(201 / stride)
    forgetful = judged["kinetic_distribution_langevin_1000"]
    assert forgetful.outcome is Outcome.UNSUPPORTED
    assert forgetful.reason == "8 decorrelated samples of the kinetic energy, 20 are needed"
    law = stats.gamma(N_DOF / 2, scale=BOLTZMANN * TARGET)
    p = stats.kstest((N_ATOMS * data.kinetic_energy[2].values[:, ::-6]).ravel(), law.cdf).pvalue
    assert judged["kinetic_distribution_svr_20"].interval.value == pytest.approx(p, rel=1e-6)
    # the mean of 300 K, and half the width: what a bath makes that forces the kinetic energy
    narrow = data.assign(kinetic_energy=0.5 * data.kinetic_energy + 0.5 * data.kinetic_energy.mean())
    assert found(narrow)["kinetic_distribution_svr_20"].interval.value < 1e-3


def oscillators(n_trials, n_replicas, n_times, *, tau=100.0, interval=16.0, n_modes=8, seed=0):
    """Kinetic energies over k T, (n_trials, n_replicas, n_times), of oscillators of 3 to 16 THz in a Langevin bath.

    Exact, and canonical from the start. An energy is forgotten in tau where that is long; times are in fs.
    """
    random = np.random.default_rng(seed)
    kinetic = np.zeros((n_times, n_trials * n_replicas))
    for omega in 2e-3 * np.pi * np.linspace(3.0, 16.0, n_modes):
        flow = linalg.expm(interval * np.array([[0.0, 1.0], [-(omega**2), -1.0 / tau]]))
        canonical = np.diag([omega**-2, 1.0])
        kick = np.linalg.cholesky(canonical - flow @ canonical @ flow.T)
        phase = np.sqrt(canonical) @ random.normal(size=(2, kinetic.shape[1]))
        for k in range(n_times):
            kinetic[k] += 0.5 * phase[1] ** 2
            phase = flow @ phase + kick @ random.normal(size=phase.shape)
    return kinetic.T.reshape(n_trials, n_replicas, n_times)


@pytest.mark.parametrize(
    ("tau", "n_replicas", "n_times"),
    # records 4, 0.4 and 20 times as long as it takes to forget an energy, and strong damping
    [(100.0, 12, 26), (1000.0, 24, 26), (100.0, 8, 126), (10.0, 4, 26)],
)
def test_right_kinetic_energies_fail_as_rarely_as_the_levels_say(tau, n_replicas, n_times):
    """The test at 5 % and 0.1 % over 400 trials, also where the record is too short to show its own correlations."""
    data = oscillators(400, n_replicas, n_times, tau=tau)
    bath = xr.Dataset(coords={"kind": "langevin", "tau": tau, "time": 0.016 * np.arange(n_times)})
    law = stats.gamma(8 / 2)
    samples = [decorrelated(trial, memory(bath)) for trial in data]
    assert min(map(len, samples)) >= 20
    p = np.array([stats.kstest(each, law.cdf).pvalue for each in samples])
    # binomial: more than 38 of 400 at 5 % with 8e-5, 5 or more at 0.1 % with 6e-5; too few would be a weak test
    assert 5 <= (p < 0.05).sum() <= 38
    assert (p < 0.001).sum() <= 4


def test_a_short_record_alone_does_not_show_its_correlations():
    """What the memory of the bath is for: by blocking alone every sixth right ensemble fails at 5 %, and worse."""
    p = [
        stats.kstest(trial[:, :: math.ceil(inefficiency(trial))].ravel(), stats.gamma(8 / 2).cdf).pvalue
        for trial in oscillators(400, 4, 26)
    ]
    assert np.mean(np.array(p) < 0.05) > 0.1


def test_samples_are_as_far_apart_as_a_bath_remembers():
    """3 tau under Langevin, 6 tau under rescaling, 2 pi tau under a chain, of samples of 0.02 ps."""
    expected = {"langevin_1000": 150.0, "langevin_10": 1.5, "svr_20": 6.0, "nose_hoover_100": 10.0 * np.pi}
    data = synthetic()
    assert {bath: memory(data.sel(bath=bath)) for bath in BATHS} == pytest.approx(expected)
    series = np.random.default_rng(0).normal(size=(3, 20))
    # counted from the end; one a replica where the memory is longer than the record
    np.testing.assert_array_equal(decorrelated(series, 6.5), series[:, [19, 12, 5]].ravel())
    np.testing.assert_array_equal(decorrelated(series, 1000.0), series[:, 19])
    # what is slower than the bath counts as well
    assert decorrelated(np.repeat(series, 16, 1), 1.0).size <= 3 * 40


def at_two_temperatures(hot=1.1, *, cold=1.0, width=1.0, n_dof=N_DOF, seed=0, n=1000):
    """Harmonic potential energies of 4 replicas at 300 and 330 K, drawn at ``cold`` and ``hot`` times 300 K."""
    random = np.random.default_rng(seed)

    def drawn(factor):
        energies = random.gamma(n_dof / 2, factor * BOLTZMANN * TARGET, (4, n)) - 400.0
        return (energies.mean() + width * (energies - energies.mean())) / N_ATOMS

    data = synthetic().isel(time=np.arange(n) % 201).assign_coords(time=0.02 * np.arange(n))
    series = ("replica", "time")
    first = xr.DataArray(drawn(cold), dims=series).expand_dims(bath=data.bath)
    data = data.assign(
        potential_energy=first,
        second_potential_energy=xr.DataArray(drawn(hot), dims=series).expand_dims(ensemble_bath=["svr_20"]),
        second_explosion_time=(("ensemble_bath", "replica"), np.full((1, 4), np.nan)),
    )
    return data.assign_attrs(second_temperature=1.1 * TARGET)


def deviation(data):
    return found(data)["ensemble_svr_20"]


def test_energies_at_two_temperatures_of_one_ensemble_differ_by_the_boltzmann_factor():
    """The deviation is the size of a standard normal number."""
    values = np.array([deviation(at_two_temperatures(seed=seed)).interval.value for seed in range(12)])
    # false alarm 0.3 % each
    assert (values < 3.0).all()
    # chi squared of 12: false alarm 2e-3
    assert 0.18 < (values**2).mean() < 2.7
    assert (values >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        # one temperature of the two is 10 % off
        {"cold": 0.9},
        {"cold": 1.1},
        {"hot": 0.99},
        {"hot": 1.21},
        # both are 30 % too high
        {"cold": 1.3, "hot": 1.43},
        # the right means, and the narrow distributions of a bath that forces the energy to them, or wide ones
        {"width": 0.5},
        {"width": 0.7},
        {"width": 1.5},
    ],
)
def test_energies_of_another_ensemble_are_found_out(wrong):
    """668 samples at each temperature: on average 4 to 15 standard errors off."""
    found_out = deviation(at_two_temperatures(**wrong))
    assert found_out.interval.value > 3.0
    assert found_out.outcome is Outcome.COMPLETED


def test_deviations_are_the_same_again_and_leave_the_random_numbers_alone():
    data = at_two_temperatures()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert deviation(data) == deviation(data)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    # the zero of energy does not matter
    shifted = data.assign({name: data[name] + 1000.0 for name in ("potential_energy", "second_potential_energy")})
    assert deviation(shifted).interval.value == pytest.approx(deviation(data).interval.value, abs=1e-4)


def test_two_temperatures_that_cannot_be_compared():
    few = deviation(at_two_temperatures(n=10))
    assert few.outcome is Outcome.UNSUPPORTED
    assert few.reason.endswith("decorrelated samples of the potential energy, 50 are needed")
    apart = deviation(at_two_temperatures(width=0.01))
    assert apart.outcome is Outcome.UNSUPPORTED
    assert apart.reason == "energies at the two temperatures do not overlap: too narrow, or of two phases"
    lost = at_two_temperatures()
    lost["second_explosion_time"][0, 1] = 1.0
    lost["second_potential_energy"][0, 1] = np.nan
    partial = deviation(lost)
    assert (partial.outcome, partial.reason) == (Outcome.EXPLODED, "1 of 4 replicas exploded and are left out")
    assert np.isfinite(partial.interval.value)
    lost["second_explosion_time"][:] = 0.0
    assert deviation(lost).reason == "4 of 4 replicas exploded"
    assert deviation(at_two_temperatures().drop_vars("potential_energy")).reason == "the model has no energy"


def test_the_species_farthest_off_is_named():
    judged = found(synthetic())
    farthest = judged["species_error_svr_20"]
    assert farthest.interval == judged["temperature_error_svr_20_O"].interval
    assert farthest.reason == "of O"
    lost = synthetic()
    lost["explosion_time"][0, 1] = 1.0
    assert found(lost)["species_error_langevin_1000"].reason == "of O; 1 of 4 replicas exploded and are left out"
    lost["explosion_time"][0] = 1.0
    assert found(lost)["species_error_langevin_1000"].reason == "4 of 4 replicas exploded"


def test_too_few_kinetic_energies_are_no_test():
    judged = found(synthetic().isel(time=slice(0, 4)))
    assert judged["kinetic_distribution_svr_20"].outcome is Outcome.UNSUPPORTED
    assert judged["kinetic_distribution_svr_20"].reason.endswith("20 are needed")


def test_testing_is_silent(capfd, recwarn):
    judge(at_two_temperatures())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_twin_is_a_distance_away():
    near, far = (
        {each.metric: each for each in compare(one, synthetic())} for one in (synthetic(seed=1), synthetic(shift=0.1))
    )
    g = synthetic(shift=0.1).rdf[0, 0].values
    reference = synthetic().rdf[0, 0].values
    for bath in BATHS:
        for metric in ("rdf_distance", "vdos_distance", "rdf_peak_shift"):
            same, other = near[f"{metric}_{bath}"].interval, far[f"{metric}_{bath}"].interval
            # noise of 0.01 in values of about 1
            assert abs(same.value) < 1e-2
            assert same.low < 1e-3
            assert other.low > 10 * abs(same.value)
        assert far[f"rdf_peak_shift_{bath}"].interval.value == pytest.approx(0.1, abs=0.01)
        distance = ((g - reference) ** 2).sum() / (reference**2).sum()
        assert far[f"rdf_distance_{bath}"].interval.value == pytest.approx(distance, rel=0.05)
    assert first_peak(synthetic().r, reference) == pytest.approx(2.5, abs=0.02)


def test_replicas_are_compared_where_both_lasted():
    data, twin = synthetic(), synthetic(seed=1)
    data["explosion_time"][0, 1] = 1.0
    twin["explosion_time"][0, 2] = 2.0
    data["rdf"][0, 1] = np.nan
    twin["rdf"][0, 2] = np.nan
    distance = next(each for each in compare(data, twin) if each.metric == "rdf_distance_langevin_1000")
    assert distance.outcome is Outcome.EXPLODED
    assert distance.interval.n == 2
    assert distance.reason == "2 of 4 replicas exploded and are left out"


def test_correlated_samples_count_for_fewer():
    """Of an autoregressive series with memory f, (1 + f) / (1 - f) samples count for one."""
    random = np.random.default_rng(0)
    series = np.zeros((64, 4096))
    for k in range(1, 4096):
        series[:, k] = 0.8 * series[:, k - 1] + random.normal(size=64)
    # blocks of up to 1024 of them, the longest of which are known to 11 %: the largest is somewhat above
    assert inefficiency(series[:, 100:]) == pytest.approx(9.0, rel=0.3)
    assert inefficiency(random.normal(size=(64, 4096))) == pytest.approx(1.0, abs=0.3)
    # an oscillation on top hides nothing of what is slow
    swing = np.sin(0.8 * np.arange(4096) + random.uniform(0, 6.28, (64, 1)))
    assert inefficiency(series / 1.67 + swing) > 0.5 * 9.0 / 1.5
    # a replica that stays where it is never forgets
    assert inefficiency(np.broadcast_to(random.normal(size=(64, 1)), (64, 1024))) == pytest.approx(256)


def test_motion_that_is_too_short_is_no_diffusion():
    data = synthetic().assign_attrs(diffusive_after=2.0)
    for metric in ("diffusion_svr_20", "diffusion_ratio_svr_20"):
        assert found(data)[metric].outcome is Outcome.UNSUPPORTED
        assert found(data)[metric].reason == "motion within 1 ps is no diffusion: that takes 2 ps here"
    assert found(synthetic().assign_attrs(diffusive_after=1.0))["diffusion_svr_20"].interval is not None


def test_a_molecule_has_neither_structure_nor_diffusion():
    data = synthetic().drop_vars("rdf")
    assert found(data)["diffusion_svr_20"].outcome is Outcome.UNSUPPORTED
    assert found(data)["diffusion_ratio_svr_20"].reason == "only periodic systems have room to diffuse"
    compared = {each.metric: each for each in compare(data, data)}
    assert compared["rdf_distance_svr_20"].reason == "only periodic systems have a g(r)"
    assert compared["vdos_distance_svr_20"].interval is not None
