"""Pictures: curves of series whose means and intervals are known on paper, and cells that lack what they need."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import xarray as xr

from conservbench.plot import MOST_POINTS, Line, Plot
from conservbench.protocols.audit.plots import plots as audit_plots
from conservbench.protocols.curves import in_stretches, interval_line, mean_line, median_line, replica_lines, size_line
from conservbench.protocols.fidelity.plots import plots as fidelity_plots
from conservbench.protocols.finetune.plots import plots as finetune_plots
from conservbench.protocols.mts.plots import plots as mts_plots
from conservbench.protocols.nve.plots import plots as nve_plots
from conservbench.protocols.relax.plots import plots as relax_plots
from conservbench.protocols.thermostat.plots import plots as thermostat_plots
from conservbench.statistics import Interval, mean_interval

TIMES = np.linspace(0.0, 1.0, 21)
REPLICAS = 4


def _named(plots: list[Plot]) -> dict[str, Plot]:
    return {plot.key: plot for plot in plots}


def _lines(plot: Plot) -> dict[str, Line]:
    return {line.name: line for line in plot.lines}


def _rng() -> np.random.Generator:
    return np.random.default_rng(20)


# curves


def test_a_mean_curve_has_the_interval_of_each_column_and_keeps_both_ends() -> None:
    x, samples = np.arange(101.0), _rng().normal(size=(6, 101))
    curve = mean_line("a", x, samples, 11)
    assert curve.x == tuple(range(0, 101, 10))
    for place in (0, 50, 100):
        wanted, found = mean_interval(samples[:, place]), curve.x.index(place)
        assert (curve.y[found], curve.low[found], curve.high[found]) == pytest.approx(
            (wanted.value, wanted.low, wanted.high), abs=0.02 * (wanted.high - wanted.low)
        )


def test_one_replica_has_no_band_and_a_column_without_a_number_is_a_gap() -> None:
    curve = mean_line("", [0.0, 1.0, 2.0], [[1.0, math.nan, 3.0]])
    assert curve == Line("", (0.0, 1.0, 2.0), (1.0, None, 3.0))


def test_a_median_curve_of_six_reaches_from_the_lowest_to_the_highest() -> None:
    curve = median_line("", [0.0], [[1.0], [2.0], [3.0], [5.0], [8.0], [1e6]])
    assert (curve.low, curve.y, curve.high) == ((1.0,), (4.0,), (1e6,))
    assert not median_line("", [0.0], [[1.0], [2.0]]).low


def test_rounding_for_a_screen_leaves_powers_of_ten_alone() -> None:
    intervals = [Interval(value, 0.5 * value, 2.0 * value, 3) for value in (1.2345e-9, 1.0, 1e9)]
    assert interval_line("", [1, 2, 3], intervals).y == (1.2345e-9, 1.0, 1e9)


def test_replicas_that_exploded_are_left_out_of_the_mean_and_the_first_is_drawn_by_itself() -> None:
    samples = np.ones((4, 5))
    samples[1, 3:], samples[2, 2:] = math.nan, math.nan
    samples[2, 1] = 100.0
    lasted = np.array([True, False, False, True])
    mean, lost = replica_lines("1 fs", np.arange(5.0), samples, lasted)
    assert (mean.name, mean.y) == ("1 fs", (1.0,) * 5)
    assert (lost.name, lost.x, lost.y) == ("1 fs exploded", (0.0, 1.0), (1.0, 100.0))


def test_replicas_that_were_lost_before_the_record_leave_nothing_to_draw() -> None:
    assert replica_lines("", np.arange(3.0), np.full((2, 3), math.nan), [False, False]) == []


@pytest.mark.parametrize(
    ("interval", "bar"),
    [
        (Interval(-2.0, -4.0, -1.0, 3), (1.0, 2.0, 4.0)),
        (Interval(2.0, 1.0, 4.0, 3), (1.0, 2.0, 4.0)),
        (Interval(-0.5, -3.0, 2.0, 3), (0.5, 0.5, 3.0)),
    ],
)
def test_a_size_has_no_lower_half_where_zero_is_in_the_interval(
    interval: Interval, bar: tuple[float, float, float]
) -> None:
    line = size_line("", [1.0, 2.0], [interval, None])
    assert (line.low[0], line.y[0], line.high[0]) == bar
    assert line.y[1] is None


def test_stretches_average_and_an_explosion_ends_them() -> None:
    series = xr.DataArray([[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, math.nan, math.nan]], dims=("replica", "time"))
    smooth = in_stretches(series.assign_coords(time=np.arange(5.0)), 2)
    assert smooth.time.values.tolist() == [1.5, 3.5]
    np.testing.assert_array_equal(smooth.values, [[1.5, 3.5], [1.5, math.nan]])


# constant energy


def _nve(drift: float = 0.02, lost: int = 0) -> xr.Dataset:
    """Energies that rise by ``drift`` eV/atom/ps at both time steps, the more the larger the step."""
    steps = np.array([1.0, 2.0])
    rise = drift * (1.0 + steps**2)[:, None, None] * TIMES
    energy = rise + np.arange(REPLICAS)[:, None]
    ends = np.full((2, REPLICAS), math.nan)
    ends[:, :lost] = TIMES[10]
    series = np.where(ends[..., None] <= TIMES, math.nan, energy)
    dims = ("time_step", "replica", "time")
    return xr.Dataset(
        {
            "total_energy": (dims, series),
            "temperature": (dims, 300.0 + 0.0 * series),
            "explosion_time": (dims[:2], ends),
        },
        coords={"time_step": steps, "time": TIMES},
    )


def test_a_known_drift_is_a_straight_line_in_millielectronvolt_from_zero() -> None:
    made = _named(nve_plots(_nve()))
    assert list(made) == ["energy", "temperature", "drift"]
    line = _lines(made["energy"])["2 fs"]
    np.testing.assert_allclose(np.array(line.y, float), 100.0 * np.array(line.x), rtol=1e-4)


def test_drifts_go_to_that_of_the_forces_in_the_limit() -> None:
    lines = _lines(_named(nve_plots(_nve()))["drift"])
    assert lines["measured"].y == pytest.approx((40.0, 100.0), rel=1e-4)
    assert (lines["in the limit"].x, lines["in the limit"].y[0]) == ((0.0,), pytest.approx(20.0, rel=1e-4))


def test_without_an_energy_the_temperature_is_drawn() -> None:
    assert list(_named(nve_plots(_nve().drop_vars("total_energy")))) == ["temperature"]


@pytest.mark.parametrize("lost", [1, REPLICAS])
def test_explosions_leave_what_there_is(lost: int) -> None:
    made = _named(nve_plots(_nve(lost=lost)))
    names = set(_lines(made["energy"]))
    assert {"1 fs exploded", "2 fs exploded"} <= names
    assert ("1 fs" in names) == (lost < REPLICAS)
    assert max(_lines(made["energy"])["1 fs exploded"].x) < TIMES[10]


# audit


def _audit(curl: float) -> xr.Dataset:
    """Loops whose force is the gradient of cos(2 pi s) plus a work of ``curl`` eV round the loop."""
    s = np.arange(16) / 16
    energy = np.tile(np.cos(2 * np.pi * s), (3, 1))
    power = 2 * np.pi * np.sin(2 * np.pi * s) + curl * np.array([1.0, 2.0, 3.0])[:, None]
    ones = np.ones((4, 2))
    return xr.Dataset(
        {
            "power": (("loop", "image"), power),
            "energy": (("loop", "image"), energy),
            "asymmetry_numerator": (("snapshot", "probe"), 0.04 * ones),
            "asymmetry_denominator": (("snapshot", "probe"), ones),
            "floor_numerator": (("floor_group", "floor_probe"), 1e-20 * ones),
            "floor_denominator": (("floor_group", "floor_probe"), ones),
            "exact_denominator": (("exact",), np.full(2, 10.0)),
            "scan_norm": (("step", "scan_probe"), np.ones((3, 2))),
            "scan_change": (("step", "scan_probe"), np.array([[1e-8] * 2, [1e-4] * 2, [math.nan] * 2])),
            "scan_error": (("step", "scan_probe"), np.full((3, 2), 1e-6)),
        },
        coords={"step": [1e-4, 1e-3, 1e-2]},
    )


def test_asymmetry_and_work_are_those_put_in() -> None:
    made = _named(audit_plots(_audit(0.01)))
    assert list(made) == ["snapshots", "loop_work", "loop_gap", "scan"]
    assert _lines(made["snapshots"])["lambda"].y == pytest.approx((0.1,) * 4)
    assert made["loop_work"].lines[0].y == pytest.approx((30.0, 20.0, 10.0))
    assert _lines(made["scan"])["change to the next step"].y == pytest.approx((1e-4, 1e-2))


def test_the_work_that_no_energy_accounts_for_grows_along_the_loop_to_the_whole() -> None:
    (gap,) = _named(audit_plots(_audit(0.01)))["loop_gap"].lines
    np.testing.assert_allclose(np.array(gap.y, float), 20.0 * np.array(gap.x), atol=0.3)
    (none,) = _named(audit_plots(_audit(0.0)))["loop_gap"].lines
    np.testing.assert_allclose(np.array(none.y, float), 0.0, atol=1e-9)


def test_pairs_of_atoms_have_their_asymmetry_and_its_noise_by_distance() -> None:
    data = _audit(0.0)
    top = np.array([[9.0, 0.04, 1.0, 0.0, 0.16], [9.0, 0.04, 1.0, 0.0, 0.0]])
    bottom = np.array([[9.0, 1.0, 1.0, 0.0, 1.0], [9.0, 1.0, 1.0, 0.0, 0.0]])
    pairs = ("exact", "distance")
    data = data.assign(
        pair_numerator=(pairs, top),
        pair_denominator=(pairs, bottom),
        pair_count=(pairs, np.full((2, 5), 20.0)),
        distance=("distance", [0.25, 2.0, 4.0, 6.0, 8.0]),
    )
    lines = _lines(_named(audit_plots(data))["asymmetry"])
    # the first bin is an atom with itself, at 6 Å there is no force, and at 8 Å a pair of one snapshot alone
    assert lines["lambda_ij"].x == (2.0, 4.0, 8.0)
    assert lines["lambda_ij"].y == pytest.approx((0.1, 0.5, 0.2))
    assert (lines["lambda_ij"].low[2], lines["lambda_ij"].high[2]) == (0.0, 1.0)
    # a fifth of 10 (eV/Å^2)^2 is in each bin
    assert lines["3 × noise"].y[:2] == pytest.approx((3 * 0.5e-10 * math.sqrt(2.0),) * 2, rel=1e-3)


def test_a_model_without_an_energy_has_its_loops_and_no_account_of_them() -> None:
    data = _audit(0.01)
    data["energy"].attrs = data["scan_error"].attrs = {"outcome": "unsupported", "outcome_reason": "none"}
    made = _named(audit_plots(data))
    assert "loop_gap" not in made
    assert list(_lines(made["scan"])) == ["change to the next step"]


# multiple time steps


def _mts(exploded: bool = False) -> xr.Dataset:
    strides, rng = np.array([1, 2, 8]), _rng()
    drift = np.array([0.0, 1e-4, 1e-2])[:, None, None]
    shape = (1, 3, REPLICAS, len(TIMES))
    energy = np.broadcast_to(drift * TIMES, shape).copy()
    ends = np.full(shape[:3], math.nan)
    if exploded:
        ends[:, 2], energy[:, 2, :, 5:] = TIMES[5], math.nan
    kelvin = 600.0 + np.array([0.0, 1.0, 5.0])[:, None, None] + 1e-3 * rng.normal(size=shape)
    rdf = np.ones((1, 3, REPLICAS, 10)) + 1e-6 * rng.normal(size=(1, 3, REPLICAS, 10))
    dims = ("time_step", "stride", "replica", "time")
    return xr.Dataset(
        {
            "total_energy": (dims, energy),
            "temperature": (dims, np.where(np.isnan(energy), math.nan, kelvin)),
            "rdf": ((*dims[:3], "r"), rdf),
            "explosion_time": (dims[:3], ends),
            "seconds_gradient": ("round", np.full(8, 3.0)),
            "seconds_direct": ("round", np.full(8, 1.0)),
            "seconds_mts": (("round", "stride"), np.full((8, 3), [3.0, 2.0, 1.25])),
        },
        coords={"time_step": [1.0], "stride": strides, "time": TIMES},
        attrs={"drift_limit": 0.26, "temperature_limit": 0.02, "rdf_limit": 5e-4, "target_temperature": 600.0},
    )


def test_a_sweep_shows_drifts_shifts_and_savings_against_their_limits() -> None:
    made = _named(mts_plots(_mts()))
    assert list(made) == ["energy", "drift", "temperature", "rdf", "speedup"]
    assert made["drift"].lines[0].y == pytest.approx((None, 0.1, 10.0))
    assert made["temperature"].lines[0].y == pytest.approx((1.0, 5.0), abs=0.01)
    assert [_lines(made[key])["limit"].y for key in ("drift", "temperature", "rdf")] == [
        (0.26, 0.26),
        (12.0, 12.0),
        (5e-4, 5e-4),
    ]
    assert made["speedup"].lines[0].y == pytest.approx((1.5, 2.4))
    # a gradient force that costs 3 direct ones, at strides 1, 2 and 8
    assert made["speedup"].lines[1].y == pytest.approx((1.0, 1.5, 2.4))


def test_a_stride_at_which_all_exploded_is_a_gap_in_the_sweep_and_a_curve_that_ends() -> None:
    made = _named(mts_plots(_mts(exploded=True)))
    assert made["drift"].lines[0].y[-1] is None
    assert max(_lines(made["energy"])["stride 8 exploded"].x) < TIMES[5]


def test_a_sweep_without_an_energy_has_the_rest() -> None:
    assert list(_named(mts_plots(_mts().drop_vars("total_energy")))) == ["temperature", "rdf", "speedup"]


# heat baths


def _baths(species: int = 1, crystal: bool = False) -> xr.Dataset:
    kinds = ["langevin", "svr"]
    shape = (2, REPLICAS, len(TIMES))
    dims = ("bath", "replica", "time")
    names = ["C", "Si"][:species]
    data = xr.Dataset(
        {
            "temperature": (dims, np.full(shape, 300.0)),
            "species_temperature": ((*dims, "species"), np.full((*shape, species), [280.0, 320.0][:species])),
            "heat": (dims, np.broadcast_to(-0.002 * TIMES, shape)),
            "explosion_time": (dims[:2], np.full(shape[:2], math.nan)),
            "mean_squared_displacement": (("bath", "replica", "lag"), np.ones((2, REPLICAS, 5))),
        },
        coords={
            "bath": ["langevin_100", "svr_10"],
            "kind": ("bath", kinds),
            "tau": ("bath", [100.0, 10.0]),
            "time": TIMES,
            "species": names,
            "lag": np.arange(5.0),
        },
        attrs={"target_temperature": 300.0, "is_crystal": "true" if crystal else "false"},
    )
    if crystal:
        data["band_temperature"] = ((*dims, "band"), np.full((*shape, 3), [250.0, 300.0, 350.0]))
        data = data.assign_coords(band=["low", "middle", "high"])
    return data


def test_what_the_bath_took_out_is_what_forces_without_an_energy_put_in() -> None:
    made = _named(thermostat_plots(_baths()))
    assert list(made) == ["temperature", "work", "displacement"]
    assert _lines(made["work"])["SVR 10 fs"].y[-1] == pytest.approx(2.0)
    assert list(_lines(made["temperature"])) == ["Langevin 100 fs", "SVR 10 fs", "target"]


def test_an_energy_gives_the_work_without_the_heat() -> None:
    data = _baths()
    data["conserved_energy"] = data.heat + 0.005 * data.time + 7.0
    assert _lines(_named(thermostat_plots(data))["work"])["SVR 10 fs"].y[-1] == pytest.approx(3.0)


def test_species_and_modes_are_drawn_where_there_are_several_under_the_most_global_bath() -> None:
    made = _named(thermostat_plots(_baths(species=2, crystal=True)))
    assert list(made) == ["temperature", "species", "modes", "work"]
    assert made["species"].title.endswith("SVR 10 fs")
    assert _lines(made["species"])["C"].y[0] == 280.0
    assert _lines(made["modes"])["high"].y[0] == 350.0


def test_g_of_r_begins_where_atoms_are() -> None:
    data = _baths()
    r = np.arange(60) * 0.1
    g = np.broadcast_to(np.where(r > 2.0, 1.0, 0.0), (2, REPLICAS, 60))
    data = data.assign(rdf=(("bath", "replica", "r"), g)).assign_coords(r=r)
    data["explosion_time"][0] = 0.5
    lines = _lines(_named(thermostat_plots(data))["rdf"])
    assert list(lines) == ["SVR 10 fs"]
    assert lines["SVR 10 fs"].x[0] == 2.0


# relaxations


def _relax(endings: list[str], stall: float = 1e-6) -> xr.Dataset:
    """Forces that fall tenfold a step from 1 eV/Å to ``stall``, of six starts; the last is in the unit cell's own."""
    n, steps = len(endings), np.arange(9)
    fall = np.broadcast_to(np.maximum(10.0**-steps, stall), (2, n, 9)).copy()
    fall[:, :, 7:] = math.nan
    return xr.Dataset(
        {
            "fmax": (("optimizer", "start", "step"), fall),
            "energy": (("optimizer", "start", "step"), 0.01 * fall - 5.0),
            "ending": (("optimizer", "start"), [endings, endings]),
            "handover": (("optimizer", "start"), np.zeros((2, n))),
        },
        coords={
            "optimizer": ["lbfgs", "fire"],
            "step": steps,
            "kind": ("start", ["rattled"] * n),
            "variable_cell": ("start", [0] * n),
            "threshold": [1e-1, 1e-3, 1e-5],
        },
    )


def test_forces_fall_to_the_threshold_and_energies_to_the_lowest() -> None:
    made = _named(relax_plots(_relax(["converged"] * 6)))
    assert list(made) == ["force", "energy", "converged"]
    force = _lines(made["force"])["lbfgs"]
    assert force.y == pytest.approx((1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-5))
    assert force.low == force.y == force.high
    assert _lines(made["energy"])["fire"].y[:2] == pytest.approx((10.0, 1.0), rel=1e-3)
    assert _lines(made["converged"])["fire"].y == (100.0, 100.0, 100.0)


def test_forces_that_stall_reach_only_the_coarser_thresholds() -> None:
    made = _named(relax_plots(_relax(["exhausted"] * 6, stall=0.05)))
    assert _lines(made["converged"])["lbfgs"].y == (100.0, 0.0, 0.0)
    assert _lines(made["force"])["lbfgs"].y[-1] == pytest.approx(0.05)


def test_a_start_that_ended_stays_and_one_that_exploded_goes() -> None:
    data = _relax(["converged", "exploded"])
    data["fmax"][:, :, 2:], data["fmax"][:, 0, 2:4] = math.nan, [1e-2, 1e-3]
    data["fmax"][:, 1, 1] = 900.0
    force = _lines(_named(relax_plots(data))["force"])["lbfgs"]
    assert force.y == pytest.approx((1.0, 450.05, 1e-2, 1e-3))


def test_an_optimizer_that_was_lost_is_not_drawn() -> None:
    data = _relax(["converged"] * 2)
    data["fmax"][1], data["energy"][1] = math.nan, math.nan
    assert list(_lines(_named(relax_plots(data))["energy"])) == ["lbfgs"]


# beside the reference


def _phonons(scale: float = 1.1) -> xr.Dataset:
    q = np.linspace(0.0, 3.0, 61)
    wanted = np.stack([band + np.sin(q) for band in range(6)], axis=1)
    names = np.full(61, "", dtype="U1")
    names[[0, 20, 21, 60]] = ["G", "U", "K", "L"]
    q[21] = q[20]
    return xr.Dataset(
        {"frequency": (("q", "branch"), scale * wanted), "reference_frequency": (("q", "branch"), wanted)},
        coords={"distance": ("q", q), "point": ("q", names)},
    )


def test_phonons_keep_special_points_and_part_branches_by_gaps() -> None:
    (plot,) = fidelity_plots(_phonons())
    lines = _lines(plot)
    assert list(lines) == ["acoustic", "optical", "reference acoustic", "reference optical", "special points"]
    assert plot.x.label.endswith("G-U|K-L")
    for line in lines.values():
        assert len(line.x) <= MOST_POINTS
    acoustic = lines["acoustic"]
    assert acoustic.y.count(None) == 2
    assert acoustic.y[acoustic.x.index(1.0)] == pytest.approx(1.1 * math.sin(1.0), abs=6e-3)
    assert lines["reference optical"].style == "reference"


def test_marks_of_special_points_are_the_same_for_all_models() -> None:
    one, other = (_lines(fidelity_plots(_phonons(scale))[0])["special points"] for scale in (1.1, 3.0))
    assert one == other
    # the highest band of the reference is 5 + sin q, the lowest sin q, nowhere below 0 on the way
    assert max(y for y in one.y if y is not None) == pytest.approx(6.0, abs=1e-2)


def test_a_crystal_whose_phonons_failed_has_no_picture() -> None:
    assert fidelity_plots(_phonons().drop_vars("frequency")) == []


def _melt(shift: float, lost: bool = False) -> xr.Dataset:
    r = np.linspace(0.5, 5.5, 101)
    wanted = np.where(r > 2.0, 1.0, 0.0)
    noise = 0.01 * np.array([[1.0], [-1.0]])
    samples = np.tile(wanted + shift, (REPLICAS, 1)) + 1e-3 * _rng().normal(size=(REPLICAS, 1))
    return xr.Dataset(
        {
            "rdf": (("replica", "r"), np.full_like(samples, math.nan) if lost else samples),
            "reference_rdf_blocks": (("block", "r"), wanted + noise),
            "temperature": (("replica", "time"), np.full((REPLICAS, 21), math.nan if lost else 300.0)),
            "mean_squared_displacement": (("replica", "lag"), np.full((REPLICAS, 3), math.nan if lost else 1.0)),
            "explosion_time": ("replica", np.full(REPLICAS, 0.0 if lost else math.nan)),
            "is_crystal": ((), False),
        },
        coords={"r": r, "time": TIMES, "lag": [0.0, 0.1, 0.2]},
        attrs={"target_temperature": 300.0},
    )


def test_a_difference_is_the_shift_put_in_beside_the_noise_of_the_reference() -> None:
    made = _named(fidelity_plots(_melt(0.2)))
    assert list(made) == ["rdf", "rdf_difference", "temperature", "displacement"]
    own, reference = made["rdf_difference"].lines
    np.testing.assert_allclose(np.array(own.y, float), 0.2, atol=2e-3)
    # two blocks 0.01 on either side: t of one degree of freedom times 0.01
    assert reference.high[5] == pytest.approx(0.12706, rel=0.01)
    assert reference.style == "reference"


def test_where_nothing_was_measured_there_is_no_picture_of_the_reference_alone() -> None:
    assert fidelity_plots(_melt(0.0, lost=True)) == []


def _tuned() -> xr.Dataset:
    parts = [
        _melt(shift).assign(target_temperature=kelvin).drop_vars("is_crystal")
        for shift, kelvin in ((0.0, 300.0), (0.1, 600.0))
    ]
    together = xr.concat(parts, xr.DataArray(["cold", "hot"], dims="condition", name="condition"), data_vars="all")
    return xr.merge([together.drop_attrs(), _phonons()]).assign_attrs(tuned_at="cold")


def test_each_condition_of_a_tuned_model_has_its_key_and_says_where_it_was_tuned() -> None:
    made = _named(finetune_plots(_tuned()))
    assert list(made) == ["rdf_cold", "rdf_hot", "phonons"]
    assert made["rdf_cold"].title.endswith("cold at 300 K, the condition of the tuning")
    assert made["rdf_hot"].title.endswith("hot at 600 K, held out from the tuning")
    np.testing.assert_allclose(np.array(made["rdf_hot"].lines[0].y, float), 0.1, atol=2e-3)


# all


@pytest.mark.parametrize(
    "make",
    [
        lambda: nve_plots(_nve(lost=1)),
        lambda: audit_plots(_audit(0.01)),
        lambda: mts_plots(_mts(exploded=True)),
        lambda: thermostat_plots(_baths(species=2, crystal=True)),
        lambda: relax_plots(_relax(["converged"] * 6)),
        lambda: fidelity_plots(_melt(0.1)),
        lambda: finetune_plots(_tuned()),
    ],
    ids=["nve", "audit", "mts", "thermostat", "relax", "fidelity", "finetune"],
)
def test_pictures_are_small_sayable_and_of_finite_numbers(make: Callable[[], list[Plot]]) -> None:
    made = make()
    assert len({plot.key for plot in made}) == len(made) <= 5
    for plot in made:
        assert plot.note.endswith(".")
        assert len(plot.lines) <= 6
        assert len({line.name for line in plot.lines}) == len(plot.lines)
        assert all(len(line.x) <= MOST_POINTS for line in plot.lines)
        for line in plot.lines if plot.y.log else ():
            assert all(value is None or value > 0 for value in (*line.y, *line.low))
        for line in plot.lines:
            for low, value, high in zip(line.low, line.y, line.high, strict=True) if line.low else ():
                assert low is None or value is None or high is None or low <= value <= high
    assert len(json.dumps([asdict(plot) for plot in made], allow_nan=False, separators=(",", ":"))) < 15_000
