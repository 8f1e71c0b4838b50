"""Speed end to end: models whose calls take what a made-up clock says, made-up series, and the memory of known acts."""

import dataclasses
import json
import math
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import xarray as xr
from ase import Atoms
from ase.build import bulk

from conservbench.cards import build, find_model, find_protocol
from conservbench.models.base import Prediction, UnsupportedError
from conservbench.models.load import load_model
from conservbench.outcome import Outcome
from conservbench.protocols.speed import clock as clock_module
from conservbench.protocols.speed import measure as measure_module
from conservbench.protocols.speed.clock import ClockedModel, Reading, clock_of
from conservbench.protocols.speed.judge import compare, judge, median_ratio, resolved
from conservbench.protocols.speed.measure import measure
from conservbench.protocols.speed.memory import held_back, peak_growth, resolution
from conservbench.protocols.speed.plots import plots
from conservbench.protocols.speed.settings import Settings
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.statistics import Interval, median_interval
from conservbench.systems import System, find_system

SETTINGS = Settings(
    repeats=((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)), replicas=4, rounds=6, steps=16, trials=1, time_step=2.0
)
GRADIENT, DIRECT, MTS = Scheme("gradient"), Scheme("direct"), Scheme("mts", 8)
CPU = torch.device("cpu")
needs_account = pytest.mark.skipif(
    not clock_module._is_accounted(),
    reason="no account of what a thread waits for a processor: needs Linux with /proc",
)


def silent(fraction):
    pass


@pytest.fixture(scope="module")
def crystal():
    sites = bulk("Si", cubic=True, a=5.431)
    return System("toy-8", 1, "crystal", 300.0, sites, (sites,), "none", "none")


class Timed:
    """Free atoms whose forces cost what is told: an amount a system, by channels and the number of its atoms."""

    elements = None
    differentiable = False
    labelled = False
    device = CPU

    def __init__(self, cost, spend, channels=("gradient", "direct")):
        self.cost, self.spend, self.channels = cost, spend, channels

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        self.spend(sum(self.cost("+".join(forces), int(n)) for n in state.counts))
        zeros = torch.zeros_like(state.positions)
        return Prediction(torch.zeros(state.n_systems, dtype=torch.float64), dict.fromkeys(forces, zeros))


@pytest.fixture
def spend(monkeypatch):
    """Move the clock of the protocol by hand."""
    shown = [0.0]

    @contextmanager
    def by_hand(device):
        yield lambda: Reading(shown[0], 0.0)

    def move(seconds):
        shown[0] += seconds

    monkeypatch.setattr(measure_module, "clock_of", by_hand)
    return move


def findings(data):
    return {finding.metric: finding for finding in judge(data)}


def exactly(value, n=6):
    same = pytest.approx(value)
    return Interval(same, same, same, n)


# end to end


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 3.0])
def test_a_model_that_costs_n_to_the_p_grows_like_that(crystal, spend, power):
    found = findings(measure(Timed(lambda _, n: 1e-3 * n**power, spend), GRADIENT, crystal, SETTINGS, silent))
    assert found["exponent"].interval == exactly(power)
    for copies in (1, 2, 4, 8):
        assert found[f"time_{copies}"].interval == exactly(1e3 * (8 * copies) ** (power - 1.0))
    assert found["force_time"].interval == found["time_1"].interval
    # the clock stands still outside of the model, and four in a batch cost four times one
    assert found["engine"].interval == exactly(0.0)
    assert found["batch_gain"].interval == exactly(1.0)
    # 2 fs a step
    assert found["ns_per_day"].interval == exactly(2e-6 * 86400 / (1e-3 * 8.0**power))
    assert found["speedup"].outcome is Outcome.UNSUPPORTED


COST = {"gradient": 2.5, "direct": 1.0, "direct+gradient": 3.0}


def test_a_stride_costs_the_mix_of_its_forces(crystal, spend):
    """Seven direct forces and one of both: 10/8 of a direct force, where the gradient alone is 2.5."""
    model = Timed(lambda forces, n: 1e-6 * n * COST[forces], spend)
    found = findings(measure(model, MTS, crystal, SETTINGS, silent))
    for copies in (1, 2, 4, 8):
        assert found[f"time_{copies}"].interval == exactly(1.25)
    assert found["speedup"].interval == exactly(2.0)
    direct = findings(measure(model, DIRECT, crystal, SETTINGS, silent))
    assert direct["time_8"].interval == exactly(1.0)
    assert direct["speedup"].interval == exactly(2.5)


def test_a_size_is_timed_for_about_as_much_work(crystal, spend):
    calls = []

    def cost(forces, n):
        calls.append(n)
        return 1e-3

    once = dataclasses.replace(SETTINGS, rounds=1, trials=1, replicas=1)
    measure(Timed(cost, spend), GRADIENT, crystal, once, silent)
    # a round that warms up and one that counts, each with a call before its steps, and two calls for the memory
    assert {n: calls.count(n) for n in (16, 32, 64)} == {16: 2 * 9 + 2, 32: 2 * 5 + 2, 64: 2 * 3 + 2}
    # at least an outer step
    calls.clear()
    measure(Timed(cost, spend, ("direct", "gradient")), MTS, crystal, once, silent)
    assert calls.count(64) == 2 * 9 + 9


def test_the_real_clock_finds_the_exponent(crystal):
    """Calls that sleep: beside 2 to 45 ms the integrator and the timer take some 0.2 ms, 0.04 of an exponent."""
    model = Timed(lambda _, n: 2e-3 * (n / 8) ** 1.5, time.sleep, ("gradient",))
    quick = dataclasses.replace(SETTINGS, steps=2, rounds=6, replicas=1)
    found = findings(measure(model, GRADIENT, crystal, quick, silent))
    assert found["exponent"].interval.value == pytest.approx(1.5, abs=0.15)
    assert found["time_8"].interval.value >= 2e3 * 8**1.5 / 64


def test_a_classical_potential_gives_every_metric_of_the_card():
    card, system, protocol = find_model("si-sw"), find_system("si-64"), find_protocol("speed")
    settings = build(Settings, {**protocol.settings("quick"), "rounds": 6, "steps": 1, "trials": 1}, "here")
    data = measure(load_model(card, system), card.scheme, system, settings, silent)
    found = {**findings(data), **{finding.metric: finding for finding in compare(data, data)}}
    assert set(found) == set(protocol.metrics)
    assert all(found[key].unit == metric.unit for key, metric in protocol.metrics.items())
    assert data.attrs["outcome"] == "completed"
    assert 0.0 < found["exponent"].interval.value < 1.3
    assert found["memory_8"].interval.value > found["memory_1"].interval.value
    assert 0.0 < found["engine"].interval.value < 50.0


def test_a_toy_is_timed_on_its_own_crystal():
    card, system = find_model("swirl-mts8"), find_system("si-64")
    data = measure(load_model(card, system), card.scheme, system, SETTINGS, silent)
    assert data.attrs["outcome"] == "completed"
    found = findings(data)
    for metric in ("time_1", "ns_per_day", "batch_gain", "speedup", "memory_1"):
        assert found[metric].interval is not None
    for metric in ("time_2", "time_8", "memory_8"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.UNSUPPORTED)
        assert "crystal of 64 atoms only" in found[metric].reason
    assert found["exponent"].reason == "one size only"


def test_the_file_gives_the_same_findings_and_names_its_units(crystal, spend, tmp_path):
    data = measure(Timed(lambda forces, n: n * COST[forces], spend), MTS, crystal, SETTINGS, silent)
    data.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "cell.nc", engine="h5netcdf")
    assert judge(again) == judge(data)
    assert plots(again) == plots(data)
    for variable in data.variables.values():
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]


def test_the_work_is_reported(crystal, spend):
    seen = []
    measure(Timed(lambda _, n: 1.0, spend), GRADIENT, crystal, SETTINGS, seen.append)
    assert seen == sorted(seen)
    assert (len(seen), seen[-1]) == (SETTINGS.rounds + SETTINGS.trials, 1.0)


# what cannot be timed


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Outcome.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Outcome.OUT_OF_MEMORY),
        (MemoryError("no room"), Outcome.OUT_OF_MEMORY),
        (UnsupportedError("too many atoms"), Outcome.UNSUPPORTED),
    ],
)
def test_a_size_that_does_not_fit_is_a_row_and_the_others_are_timed(crystal, spend, error, outcome):
    def cost(forces, n):
        if n > 16:
            raise error
        return 1e-3 * n

    data = measure(Timed(cost, spend), GRADIENT, crystal, SETTINGS, silent)
    found = findings(data)
    assert found["exponent"].interval == exactly(1.0)
    for metric in ("time_4", "time_8", "memory_8"):
        assert (found[metric].interval, found[metric].outcome) == (None, outcome)
        assert found[metric].reason == str(error)
    assert found["time_2"].interval == exactly(1e3)
    assert data.attrs["outcome"] == "completed"


def test_an_error_of_the_model_is_none_of_a_size(crystal, spend):
    def cost(forces, n):
        if n > limit:
            raise raised
        return 1.0

    limit, raised = 16, RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measure(Timed(cost, spend), GRADIENT, crystal, SETTINGS, silent)
    # what cannot even take the system itself has nothing to say of it
    limit, raised = 0, UnsupportedError("no atoms at all")
    with pytest.raises(UnsupportedError, match="no atoms at all"):
        measure(Timed(cost, spend), GRADIENT, crystal, SETTINGS, silent)


def test_a_scheme_without_its_channel_is_unsupported(crystal, spend):
    with pytest.raises(UnsupportedError, match="no direct forces"):
        measure(Timed(lambda _, n: 1.0, spend, ("gradient",)), DIRECT, crystal, SETTINGS, silent)
    alone = Timed(lambda _, n: 1e-3, spend, ("direct",))
    found = findings(measure(alone, DIRECT, crystal, SETTINGS, silent))
    assert found["speedup"].interval is None
    assert found["speedup"].reason == "the model has no gradient forces: see the speed-up by twin"


class Fragile(Timed):
    """Forces that are no numbers once more than 16 atoms have moved."""

    def evaluate(self, state, **wanted):
        said = super().evaluate(state, **wanted)
        # the first site of the crystal is the origin
        bad = torch.nan if state.n_atoms > 16 * state.n_systems and bool(state.positions[0].any()) else 0.0
        return Prediction(said.energy, {key: force + bad for key, force in said.forces.items()})


def test_steps_that_explode_have_no_time(crystal, spend):
    data = measure(Fragile(lambda _, n: 1e-3 * n, spend), GRADIENT, crystal, SETTINGS, silent)
    assert data.attrs["outcome"] == "exploded"
    assert data.attrs["outcome_reason"].startswith("a step of 32 atoms left the physical range; a step of 64 atoms")
    found = findings(data)
    for metric in ("time_4", "time_8"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.EXPLODED)
    assert found["time_2"].interval == exactly(1e3)
    assert found["exponent"].interval == exactly(1.0)


def test_a_molecule_is_not_repeated(spend):
    molecule = Atoms("Si2", [[0, 0, 0], [0, 0, 2.2]], cell=[9, 9, 9])
    alone = System("molecule", 1, "two atoms", 300.0, molecule, (molecule,), "none", "none")
    found = findings(measure(Timed(lambda _, n: 1.0, spend), GRADIENT, alone, SETTINGS, silent))
    assert found["time_1"].interval == exactly(5e5)
    assert found["time_8"].reason == "a system is repeated in directions in which it is periodic only"


# the judge


SIZES = np.array([64, 128, 256, 512])


def synthetic(rng, rounds=12, power=1.2, noise=0.05, busy=0.2, **attributes):
    """Times c n^p with noise; a busy moment triples all of a round."""
    factor = np.exp(noise * rng.standard_normal((rounds, len(SIZES) + 2)))
    factor *= np.where(rng.random(rounds) < busy, 3.0, 1.0)[:, None]
    step = 1e-6 * SIZES**power * factor[:, :4]
    return xr.Dataset(
        {
            "step_seconds": (("round", "size"), step),
            "force_seconds": (("round", "size"), 0.9 * step),
            "waited_seconds": (("round", "size"), np.zeros_like(step)),
            "batch_step_seconds": ("round", 3.0 * step[:, 0] * factor[:, 4] / factor[:, 0]),
            "gradient_step_seconds": ("round", 2.5 * step[:, 0] * factor[:, 5] / factor[:, 0]),
            "memory": (("trial", "size"), np.array([1e6 * SIZES + 1e5 * k for k in range(6)])),
        },
        coords={"size": SIZES},
        attrs={
            "n_atoms": 64,
            "replicas": 4,
            "scheme": "direct",
            "stride": 1,
            "time_step": 1.0,
            "device": "cpu",
            "memory_resolution": 1e5,
            "left_out": "{}",
            **attributes,
        },
    )


def test_busy_moments_move_no_value():
    found = findings(synthetic(np.random.default_rng(1), rounds=60, noise=0.01))
    for metric, answer in {
        "time_1": 64**0.2,
        "time_8": 512**0.2,
        "exponent": 1.2,
        "speedup": 2.5,
        "batch_gain": 4 / 3,
        "engine": 10.0,
        "memory_8": 512.25,
    }.items():
        assert found[metric].interval.value == pytest.approx(answer, rel=0.01), metric


def test_intervals_cover_the_answer():
    """At least 95 % by construction; 0.90 of 200 is 3.2 standard deviations below, a false alarm in 1000."""
    rng = np.random.default_rng(2)
    hits = dict.fromkeys(("exponent", "speedup", "batch_gain"), 0)
    for _ in range(200):
        found = findings(synthetic(rng))
        for metric, answer in zip(hits, (1.2, 2.5, 4 / 3), strict=True):
            hits[metric] += found[metric].interval.low <= answer <= found[metric].interval.high
    assert min(hits.values()) >= 180
    assert max(hits.values()) <= 199


def test_intervals_of_ratios_of_medians_cover_the_answer():
    """As above, of rounds of two results that know nothing of each other."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(300):
        top, bottom = (scale * np.exp(0.2 * rng.standard_normal(20)) for scale in (3.0, 1.0))
        interval = median_ratio(top, bottom)
        inside += interval.low <= 3.0 <= interval.high
        assert interval.low < interval.value < interval.high
    assert 270 <= inside <= 299
    # too few rounds bound nothing
    assert median_ratio([1.0, 2.0], [1.0, 1.0, 1.0]) == Interval(pytest.approx(math.sqrt(2.0)), 0.0, math.inf, 2)


def test_a_twin_is_compared_within_one_running_machine_only():
    rng = np.random.default_rng(4)

    def measured(boot, **changes):
        return synthetic(rng, noise=0.0, busy=0.0, provenance=json.dumps({"boot": boot}), **changes)

    slow = measured("a")
    slow["step_seconds"] = 2.0 * slow.step_seconds
    (found,) = compare(measured("a"), slow)
    assert (found.metric, found.interval) == ("speedup_twin", exactly(2.0, 12))
    for mine, other in (("a", "b"), (None, None), ("a", None)):
        (found,) = compare(measured(mine), measured(other))
        assert (found.interval, found.outcome) == (None, Outcome.UNSUPPORTED)
        assert found.reason == "its twin was not measured on the same machine since that was started"
    assert compare(synthetic(rng), synthetic(rng))[0].interval is None
    wide = measured("a").assign_attrs(provenance=json.dumps({"boot": "a", "threads": 8}))
    assert compare(measured("a"), wide)[0].interval is None
    busy = measured("a")
    busy["waited_seconds"] = busy.step_seconds
    assert "others had the processor" in compare(measured("a"), busy)[0].reason
    lost = measured("a", left_out=json.dumps({"64": ["exploded", "a step left the physical range"]}))
    lost["step_seconds"] = lost.step_seconds.where(lost["size"] > 64)
    assert [finding.outcome for finding in compare(measured("a"), lost)] == [Outcome.EXPLODED]
    # nor are there other numbers of what exploded
    found = findings(lost)
    for metric in ("time_1", "ns_per_day", "engine", "batch_gain", "speedup"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.EXPLODED)
    assert found["time_2"].interval is not None
    assert found["waiting"].interval is not None


def test_waiting_is_told():
    data = synthetic(np.random.default_rng(5))
    assert findings(data)["waiting"].interval == exactly(0.0, 12)
    assert findings(data)["waiting"].reason == ""
    busy = data.assign(waited_seconds=3.0 * data.step_seconds)
    assert findings(busy)["waiting"].interval == exactly(75.0, 12)
    assert "others had the processor" in findings(busy)["waiting"].reason
    blind = data.assign(waited_seconds=np.nan * data.step_seconds)
    assert findings(blind)["waiting"].outcome is Outcome.UNSUPPORTED


def test_what_exploded_or_was_left_out_says_so():
    data = synthetic(
        np.random.default_rng(6),
        left_out=json.dumps({"512": ["exploded", "a step left the physical range"], "gradient": ["unsupported", "no"]}),
    )
    data.step_seconds[3, 3] = np.nan
    found = findings(data)
    assert (found["time_8"].interval, found["time_8"].outcome) == (None, Outcome.EXPLODED)
    assert (found["speedup"].outcome, found["speedup"].reason) == (Outcome.UNSUPPORTED, "no")
    assert found["exponent"].interval.n == 12


def test_memory_that_nobody_tells_is_unsupported():
    data = synthetic(np.random.default_rng(7))
    found = findings(data.assign(memory=np.nan * data.memory))["memory_8"]
    assert (found.interval, found.outcome) == (None, Outcome.UNSUPPORTED)
    small = findings(data.assign(memory=0.0 * data.memory + 4096.0))["memory_8"].interval
    assert small == Interval(pytest.approx(0.004, abs=1e-4), 0.0, pytest.approx(0.104, abs=1e-3), 6)


def test_intervals_of_memory_are_as_wide_as_the_machine_leaves_it_open():
    narrow, wide = (
        findings(synthetic(np.random.default_rng(7), memory_resolution=width))["memory_8"].interval
        for width in (0.0, 4e6)
    )
    assert (wide.value, wide.low, wide.high) == pytest.approx((narrow.value, narrow.low - 4.0, narrow.high + 4.0))
    drawn = {plot.key for plot in plots(synthetic(np.random.default_rng(7), memory_resolution=1e9))}
    assert "memory" not in drawn


# pictures


def test_pictures_show_what_the_judge_says():
    data = synthetic(np.random.default_rng(8))
    found, drawn = findings(data), {plot.key: plot for plot in plots(data)}
    assert list(drawn) == ["time", "memory", "rounds"]
    assert drawn["memory"].lines[0].y == pytest.approx([found[f"memory_{k}"].interval.value for k in (1, 2, 4, 8)])
    step, force = drawn["time"].lines
    assert step.x == tuple(SIZES)
    for copies, value, low, high in zip((1, 2, 4, 8), step.y, step.low, step.high, strict=True):
        interval = found[f"time_{copies}"].interval
        assert (value, low, high) == pytest.approx((interval.value, interval.low, interval.high), rel=1e-4)
    assert np.array(force.y) == pytest.approx(0.9 * np.array(step.y), rel=1e-4)
    assert all(plot.note for plot in drawn.values())
    assert len(drawn["rounds"].lines) == 4


def test_sizes_without_a_time_are_gaps():
    card, system = find_model("swirl"), find_system("si-64")
    settings = dataclasses.replace(SETTINGS, rounds=1)
    drawn = {plot.key: plot for plot in plots(measure(load_model(card, system), DIRECT, system, settings, silent))}
    assert drawn["time"].lines[0].y[1:] == (None, None, None)
    # a toy needs less memory than can be told
    assert list(drawn) == ["time", "rounds"]
    assert [line.name for line in drawn["rounds"].lines] == ["64 atoms"]


# the clock and the memory


def test_the_clock_stands_still_while_others_have_the_processor(monkeypatch):
    shown = iter([10.0, 11.0, 12.0])
    waits = iter([1_000_000_000, 3_000_000_000, 3_000_000_000, 3_000_000_000])
    monkeypatch.setattr(clock_module, "perf_counter", lambda: next(shown))
    # the first two looks at the account differ: the clock is read again
    assert clock_module._read(lambda: next(waits)) == Reading(11.0, 3.0)
    assert Reading(11.0, 3.0).own == 8.0
    assert Reading(11.0, math.nan).own == 11.0


def test_a_system_without_the_account_gives_the_time_on_the_wall(monkeypatch, tmp_path):
    for text in (None, "0 0 0\n"):
        account = tmp_path / "schedstat"
        if text is not None:
            account.write_text(text)
        monkeypatch.setattr(clock_module, "_SCHEDSTAT", account)
        before = time.perf_counter()
        with clock_of(CPU) as clock:
            reading = clock()
        assert math.isnan(reading.waited)
        assert before <= reading.own <= time.perf_counter()


@needs_account
def test_work_takes_its_own_time_and_sleep_too():
    """The time of the process is another account of work; it knows no sleep."""
    with clock_of(CPU) as clock:
        begun, worked = clock(), time.process_time()
        sum(number * number for number in range(500_000))
        burned, ended = time.process_time() - worked, clock()
        assert ended.own - begun.own == pytest.approx(burned, rel=0.2)
        time.sleep(0.05)
        assert clock().own - ended.own >= 0.049


def test_a_clocked_model_is_the_model():
    inner = load_model(find_model("swirl-mts8"), find_system("si-64"))
    state = from_atoms(find_system("si-64").snapshots[0])
    with clock_of(CPU) as clock:
        model = ClockedModel(inner, clock)
        said, wanted = (each.evaluate(state, forces=inner.channels) for each in (model, inner))
    assert all(torch.equal(said.forces[key], wanted.forces[key]) for key in inner.channels)
    assert model.seconds > 0
    for name in ("channels", "elements", "differentiable", "labelled", "device"):
        assert getattr(model, name) == getattr(inner, name)


@pytest.mark.skipif(math.isnan(peak_growth(lambda: None, CPU)), reason="no peak of memory: needs Linux with /proc")
@pytest.mark.parametrize("megabytes", [0, 20, 80])
def test_the_peak_of_an_act_is_what_it_holds(megabytes):
    def act():
        first = torch.ones(125_000 * megabytes, dtype=torch.float64)
        return first * 2.0

    # two tensors at once; what was freed before counts again
    for _ in range(2):
        assert peak_growth(act, CPU) == pytest.approx(2e6 * megabytes, abs=1e6)


@pytest.mark.skipif(math.isnan(peak_growth(lambda: None, CPU)), reason="no peak of memory: needs Linux with /proc")
@pytest.mark.parametrize("megabytes", [5, 100])
def test_the_interval_of_a_known_act_holds_it(megabytes):
    """What the count of each CPU holds back is missing in every trial: order statistics over trials do not see it."""
    size = 1_000_000 * megabytes
    peaks = [peak_growth(lambda: torch.ones(size, dtype=torch.uint8), CPU) / 1e6 for _ in range(12)]
    interval = resolved(median_interval(peaks), resolution(CPU) / 1e6)
    assert interval.low <= megabytes <= interval.high


@pytest.mark.parametrize(
    ("n_cpus", "n_allowed", "pages"), [(1, 1, 64), (2, 2, 64 * math.sqrt(2)), (16, 4, 128), (64, 16, 1024)]
)
def test_what_the_counts_of_cpus_hold_back(n_cpus, n_allowed, pages):
    """Two readings, a batch of max(32, 2 CPUs) pages each, added in square over those where the process runs."""
    assert held_back(n_cpus, n_allowed) == pytest.approx(pages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": ()}, r"repeats is \[\]; expected \[1, 1, 1\] and what ascends from it"),
        ({"repeats": ((2, 1, 1),)}, "repeats is"),
        ({"repeats": ((1, 1, 1), (2, 2, 1), (4, 1, 1))}, "repeats is"),
        ({"repeats": ((1, 1, 1), (0, 2, 2))}, "repeats is"),
        ({"repeats": ((1, 1, 1), (-2, -2, 1))}, "repeats is"),
        ({"replicas": 0}, "replicas is 0; expected 1 or more"),
        ({"rounds": 0}, "rounds is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"trials": 0}, "trials is 0"),
        ({"time_step": 0.0}, "time_step is 0.0; expected a positive number"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)
