"""One rung of a ladder: errors of made-up labels that are known, densities on paper, and Stillinger-Weber silicon."""

import json
import shutil

import numpy as np
import pytest
import tomli_w
import torch
import xarray as xr
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from scipy import stats
from scipy.stats import norm

from conservbench.cards import CardError, build, find_model, find_protocol
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.harmonic_density import harmonic_density
from conservbench.outcome import Outcome
from conservbench.protocols.complexity import labels, measure
from conservbench.protocols.complexity.judge import BELOW, below, densities, density, energy_error, judge
from conservbench.protocols.complexity.plots import plots
from conservbench.protocols.complexity.settings import Settings
from conservbench.references import find_reference
from conservbench.result import read_result
from conservbench.runner import kept_outcome, plan, run_cells
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.systems import find_system

SMOKE = find_protocol("complexity").settings("smoke", "si-64")
SAMPLING = {key: SMOKE[key] for key in ("replicas", "duration", "time_step", "sample_every", "equilibration_time")}
SAMPLING["longest_lag"] = SMOKE["longest_lag"]


def settings(**changes):
    return Settings(**{**SAMPLING, "reference": "si-pbe", **changes})


def labelled(missed):
    """Crystals of eight atoms whose labels miss Stillinger-Weber by (energy of an atom in eV, force in eV/Å)."""
    teacher = StillingerWeber()
    made = []
    for seed, (group, energy, force) in enumerate(missed):
        atoms = bulk("Si", "diamond", 5.43, cubic=True)
        atoms.rattle(0.1, seed=seed)
        said = teacher.evaluate(from_atoms(atoms), forces=("gradient",))
        off = np.zeros((8, 3))
        off[:4, 0], off[4:, 0] = force, -force
        forces = said.forces["gradient"].numpy() + off
        atoms.calc = SinglePointCalculator(atoms, energy=float(said.energy) + 8 * (energy + 5.0), forces=forces)
        atoms.info = {"group": group, "description": f"frame {seed} at 300 K"}
        made.append(atoms)
    return made


@pytest.fixture
def few(monkeypatch):
    """Five labelled frames in place of a data set."""
    frames = labelled(
        [("AIMD", 0.01, 0.2), ("AIMD", -0.01, 0.4), ("Elastic", 0.0, 0.1), ("Elastic", 0.0, 0.1), ("X", 0, 0)]
    )
    monkeypatch.setattr(labels, "load_frames", lambda *_: frames)


ASKED = (("solid", r"AIMD.* at 300 K"), ("strained", "^Elastic"))


@pytest.mark.usefixtures("few")
def test_errors_on_labels_are_those_that_were_made():
    asked = settings(labels="mlearn-si", reference="", groups=ASKED)
    data = measure.measure(StillingerWeber(), Scheme("gradient"), find_system("si-64"), asked, lambda _: None)
    found = {finding.metric: finding for finding in judge(data)}
    # a third of the components are off; what all energies are off by is no error
    expected = 1e3 * np.sqrt(np.mean([0.04, 0.16, 0.01, 0.01, 0.0]) / 3)
    assert found["force_error"].interval.value == pytest.approx(expected)
    assert found["force_error"].interval.n == 5
    assert found["force_error_solid"].interval.value == pytest.approx(1e3 * np.sqrt(0.1 / 3))
    assert found["force_error_strained"].interval.value == pytest.approx(1e3 * np.sqrt(0.01 / 3))
    assert found["energy_error"].interval.value == pytest.approx(np.sqrt(2 / 5) * 10.0)
    assert found["energy_error_strained"].interval.value == pytest.approx(0.0, abs=1e-6)
    assert "force_error_other" not in found
    assert found["elastic_error"].interval is None
    assert found["step_time"].outcome is Outcome.UNSUPPORTED
    assert [plot.key for plot in plots(data)] == ["force_errors"]


@pytest.mark.usefixtures("few")
def test_groups_without_a_frame_are_refused():
    asked = settings(labels="mlearn-si", reference="", groups=(*ASKED, ("hot", "at 900 K")))
    with pytest.raises(ValueError, match=r"of group 'hot'; frames are such as 'AIMD frame 0 at 300 K'"):
        labels.measure_labels(StillingerWeber(), Scheme("gradient"), asked, lambda _: None)


def test_frames_of_one_trajectory_are_one_sample(monkeypatch):
    """Two trajectories of two frames: the jackknife is that of two values, on paper; of one there are no bounds."""
    frames = labelled([("A", 0.0, 0.1), ("A", 0.0, 0.1), ("B", 0.0, 0.3), ("B", 0.0, 0.3)])
    for frame in frames:
        frame.info["trajectory"] = 0
    monkeypatch.setattr(labels, "load_frames", lambda *_: frames)
    asked = settings(labels="mlearn-si", reference="", groups=(("a", "^A"),))
    data = measure.measure(StillingerWeber(), Scheme("gradient"), find_system("si-64"), asked, lambda _: None)
    assert data.trajectory.values.tolist() == [0, 0, 1, 1]
    found = {finding.metric: finding.interval for finding in judge(data)}
    assert found["force_error"].n == 2
    # t of one degree of freedom times half the difference of the mean squares
    assert found["force_error"].high ** 2 == pytest.approx(1e6 * (0.05 + 12.7062 * 0.04) / 3, rel=1e-4)
    assert (found["force_error_a"].low, found["force_error_a"].high) == (-np.inf, np.inf)


def test_labels_may_lack_an_element_of_the_system(monkeypatch):
    frames = labelled([("AIMD", 0.0, 0.1), ("Elastic", 0.0, 0.2)])
    monkeypatch.setattr(labels, "load_frames", lambda *_: frames)
    asked = settings(labels="mlearn-si", reference="", groups=ASKED)
    data = measure.measure(StillingerWeber(), Scheme("gradient"), find_system("si-64"), asked, lambda _: None)
    both = xr.merge([data, moving(0.3, 1)], combine_attrs="drop_conflicts")
    found = {
        finding.metric: finding.interval for finding in judge(both.assign_attrs(data.attrs, **moving(0.3, 1).attrs))
    }
    assert found["energy_error"].value is not None
    assert found["diffusion_li"] is not None


@pytest.mark.usefixtures("few")
def test_the_force_of_the_scheme_counts_without_its_net_force():
    class Pushed(StillingerWeber):
        """Direct forces: those of the energy and a push on all atoms, which no simulation would use."""

        channels = ("gradient", "direct")

        def evaluate(self, state, *, forces=(), **rest):
            said = super().evaluate(state, forces=("gradient",), **rest)
            pushed = {"gradient": said.forces["gradient"], "direct": said.forces["gradient"] + 0.7}
            return type(said)(said.energy, {name: pushed[name] for name in forces}, said.stress)

    asked = settings(labels="mlearn-si", reference="", groups=ASKED)
    both = [labels.measure_labels(Pushed(), Scheme(kind), asked, lambda _: None) for kind in ("gradient", "direct")]
    np.testing.assert_allclose(both[0].force.values, both[1].force.values, atol=1e-12)


@pytest.mark.usefixtures("few")
def test_a_model_that_fails_on_labels_still_has_properties():
    asked = settings(labels="mlearn-si", groups=ASKED)

    class Wrong(StillingerWeber):
        """Forces that are no numbers where the crystal is rattled."""

        def evaluate(self, state, **rest):
            said = super().evaluate(state, **rest)
            return (
                said if state.n_atoms != 8 else type(said)(said.energy, {k: v * np.nan for k, v in said.forces.items()})
            )

    data = measure.measure(Wrong(), Scheme("gradient"), find_system("si-64"), asked, lambda _: None)
    found = {finding.metric: finding for finding in judge(data)}
    assert found["force_error"].outcome is Outcome.FAILED
    assert found["elastic_error"].interval is not None
    assert data.attrs["outcome"] == "failed"
    assert "labels: frame 0 of mlearn-si" in data.attrs["outcome_reason"]


def test_density_is_that_of_the_differentiable_room():
    modes, at = np.random.default_rng(0).normal(8.0, 3.0, 50), np.linspace(-2.0, 20.0, 40)
    np.testing.assert_allclose(density(modes, at, 0.4), harmonic_density(torch.as_tensor(modes), at, 0.4), rtol=1e-12)


def test_density_error_of_one_mode_is_that_on_paper():
    """Two Gaussians of one width w at a distance d overlap by 2 Phi(-d / 2w)."""

    def off(distance):
        data = xr.Dataset(
            {
                "frequency": (("q", "branch"), [[1.0], [5.0 + distance]]),
                "reference_frequency": (("q", "branch"), [[1.0], [5.0]]),
            },
            attrs={"path": 1, "density_width": 0.4},
        )
        at, found, wanted = densities(data)
        return 0.5 * np.abs(found - wanted).sum() * (at[1] - at[0])

    for distance in (0.0, 0.3, 1.0, 8.0):
        assert off(distance) == pytest.approx(1.0 - 2.0 * norm.cdf(-distance / 0.8), abs=1e-4)


def test_the_mesh_has_the_modes_of_the_reference():
    reference = find_reference("si-pbe")
    wider = measure.with_mesh(reference, 4)
    n = len(reference.phonons.points)
    assert len(wider.phonons.points) == n + 64
    np.testing.assert_array_equal(wider.phonons.frequencies[:n], reference.phonons.frequencies)
    # the sum of squares over a shifted mesh that the supercell resolves is the trace of the diagonal blocks
    squares = (2 * np.pi * wider.phonons.frequencies[n:]) ** 2
    constants = reference.force_constants
    trace = np.mean([np.trace(constants.matrix[atom, atom]) for atom in constants.primitive])
    # eV/(Å^2 amu) to THz^2
    assert squares.sum(1).mean() / 2 == pytest.approx(trace / 28.085 * 9648.533, rel=0.02)


def test_stillinger_weber_is_judged_as_fidelity_judges_it(tmp_path, monkeypatch):
    frames = labelled([(group, 0.0, 0.1) for group in ("AIMD", "AIMD", "Elastic", "Vacancy", "Surface")])
    frames[1].info["description"] = "at 2530 K"
    monkeypatch.setattr(labels, "load_frames", lambda *_: frames)
    cells = plan(["si-sw"], ["complexity", "fidelity"], ["si-64", "si-melt-64"], "smoke")
    run_cells(cells, tmp_path)
    files = {(cell.protocol.name, cell.system): read_result(cell.path(tmp_path)) for cell in cells}
    for data in files.values():
        assert data.attrs["outcome"] == "completed", data.attrs["outcome_reason"]
    from conservbench.protocols.fidelity.judge import judge as judge_fidelity

    for system, metrics in (
        ("si-64", ("lattice_error", "elastic_error", "phonon_error", "imaginary_modes")),
        ("si-melt-64", ("rdf_error", "peak_shift", "temperature_error", "diffusion")),
    ):
        mine = {each.metric: each for each in judge(files["complexity", system])}
        theirs = {each.metric: each for each in judge_fidelity(files["fidelity", system])}
        for metric in metrics:
            assert mine[metric].interval.value == pytest.approx(theirs[metric].interval.value, rel=1e-9), metric
    mine = {each.metric: each for each in judge(files["complexity", "si-64"])}
    assert mine["step_time"].interval.value > 0
    assert 0.05 < mine["density_error"].interval.value < 0.9
    assert {"force_errors", "phonons", "density"} <= {plot.key for plot in plots(files["complexity", "si-64"])}
    card = find_protocol("complexity")
    declared = set(card.metrics)
    assert {
        each.metric for data in files.values() if data.attrs["protocol"] == "complexity" for each in judge(data)
    } <= declared
    assert json.loads(files["complexity", "si-melt-64"].attrs["protocol_card"])["name"] == "complexity"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": ""}, "expected one of them or both"),
        ({"groups": (("Solid", "x"),)}, "no name of its own"),
        ({"groups": (("a", "x"), ("a", "y"))}, "no name of its own"),
        ({"groups": (("other", "x"),)}, "other than 'other'"),
        ({"groups": (("a", "("),)}, "no regular expression"),
        ({"width": 0.0}, "width is 0"),
        ({"mesh": 0}, "mesh is 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_a_system_that_the_reference_does_not_know_is_unsupported():
    from conservbench.models.base import UnsupportedError

    with pytest.raises(UnsupportedError, match="neither a g\\(r\\) nor the crystal"):
        measure.measure(StillingerWeber(), Scheme("gradient"), find_system("si-vacancy-63"), settings(), lambda _: None)


def test_a_folder_of_cards_is_a_ladder(tmp_path):
    """The cards of a folder in the order of their names, each with its checkpoint."""
    for name in ("si-ace-2", "si-ace-2-small"):
        card = find_model(name)
        shutil.copy(card.path, tmp_path)
        shutil.copy(card.checkpoint, tmp_path)
    cells = plan([str(tmp_path), "si-sw"], ["complexity"], ["si-64"], "smoke")
    assert [cell.model.name for cell in cells] == ["si-ace-2-small", "si-ace-2", "si-sw"]
    assert cells[0].model.path.parent == tmp_path
    (tmp_path / "none").mkdir()
    with pytest.raises(CardError, match="no card"):
        plan([str(tmp_path / "none")], ["complexity"])


def moving(drift, seed, peak=2.0, line=5.0, replicas=8):
    """Atoms in motion whose lithium moves by ``6 drift`` Å^2 a ps, with a g(r) and a spectrum of one peak each."""
    rng = np.random.default_rng(seed)
    lag, r, f = np.linspace(0.0, 1.0, 11), np.linspace(0.5, 5.5, 100), np.linspace(0.0, 30.0, 40)
    # the same starts: what chance does to one replica it does under all models
    speeds = drift + 0.05 * np.random.default_rng(0).normal(size=replicas)
    ions = 6.0 * speeds[:, None] * lag + 0.3
    displacement = np.stack([ions, np.full_like(ions, 0.2)], axis=1)

    def curves(x, centre, width):
        heights = 1.0 + 0.02 * rng.normal(size=(replicas, 1))
        return heights * np.exp(-(((x - centre) / width) ** 2)) + 0.001 * rng.normal(size=(replicas, len(x)))

    return xr.Dataset(
        {
            "rdf": (("replica", "r"), curves(r, peak, 0.3)),
            "reference_rdf_blocks": (("block", "r"), curves(r, 2.0, 0.3)),
            "spectrum": (("replica", "vibration"), curves(f, line, 2.0)),
            "mean_squared_displacement": (("replica", "lag"), displacement.mean(1)),
            "displacement_of": (("replica", "element", "lag"), displacement),
            "temperature": (("replica", "time"), 700.0 + rng.normal(size=(replicas, 5))),
            "explosion_time": ("replica", np.full(replicas, np.nan)),
            "is_crystal": ((), False),
        },
        coords={"lag": lag, "r": r, "vibration": f, "element": ["Li", "S"]},
        attrs={"target_temperature": 700.0, "rdf_width": 0.1},
    )


def test_labels_of_ones_own_lie_beside_the_card_and_are_part_of_what_a_result_is_of(tmp_path, monkeypatch):
    """From whatever folder one runs; a file that changes is measured again, and one that is not there is told first."""
    shipped = find_protocol("complexity").path.read_text(encoding="utf-8")
    renamed = shipped.replace('name = "complexity"', 'name = "mine"\nplugin = "complexity"')
    head, _, rest = renamed.partition("systems =")
    table = tomli_w.dumps({"labels": "mine.extxyz", **SAMPLING})
    metrics = f"[metrics.{rest.partition('[metrics.')[2]}"
    (tmp_path / "mine.toml").write_text(f'{head}systems = ["si-64"]\n[settings]\n{table}{metrics}', encoding="utf-8")
    asked = {"models": ["si-sw"], "protocols": [str(tmp_path / "mine.toml")], "tier": "smoke"}
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match=r"no data file .*mine\.extxyz"):
        plan(**asked)
    frames = labelled([("A", 0.0, 0.0), *[("A", 0.01 * k, 0.03 * k) for k in range(1, 4)]])
    for frame in frames:
        frame.info["split"] = "test"
    frames[0].info["split"] = "train"
    write(tmp_path / "mine.extxyz", frames)
    (cell,) = plan(**asked)
    (other,) = plan(**{**asked, "models": ["si-edip"]})
    assert run_cells([cell], tmp_path / "out") == {cell: Outcome.COMPLETED}
    data = read_result(cell.path(tmp_path / "out"))
    assert data.sizes["frame"] == 3
    # no folder of its user
    assert data.attrs["labels"] == "mine.extxyz"
    assert set(json.loads(data.attrs["provenance"])["digests"]) == {"model", "protocol", "system", "labels"}
    found = {finding.metric: finding.interval for finding in judge(data)}
    assert found["force_error"].value == pytest.approx(30.0 * np.sqrt(np.mean([1.0, 4.0, 9.0]) / 3), rel=1e-6)
    assert kept_outcome(cell, tmp_path / "out", "cpu") is Outcome.COMPLETED
    frames[1].info["split"] = "train"
    write(tmp_path / "mine.extxyz", frames)
    (changed,) = plan(**asked)
    assert kept_outcome(changed, tmp_path / "out", "cpu") is None
    # gone while others are measured: a recorded failure
    (tmp_path / "mine.extxyz").unlink()
    assert run_cells([other], tmp_path / "out") == {other: Outcome.FAILED}


def test_groups_are_found_in_descriptions_and_a_file_may_be_for_testing_alone(tmp_path):
    frames = labelled([("A", 0.0, 0.1), ("A", 0.0, 0.2)])
    for frame in frames:
        frame.info["split"] = "test"
    write(tmp_path / "mine.extxyz", frames)
    asked = settings(labels=str(tmp_path / "mine.extxyz"), reference="", groups=(("first", "frame 0 at 300 K"),))
    data = labels.measure_labels(StillingerWeber(), Scheme("gradient"), asked, lambda _: None)
    assert data.group.values.tolist() == ["first", "other"]


def test_diffusion_of_lithium_is_in_its_usual_unit():
    """0.1 Å^2/ps are 1e-5 cm^2/s; all atoms are lithium to one half here, and the rest stay."""
    found = {each.metric: each for each in judge(moving(0.3, 1))}
    ions, every = found["diffusion_li"], found["diffusion"]
    assert ions.interval.value == pytest.approx(10 * 2 * every.interval.value)
    assert ions.interval.low < 3.0 < ions.interval.high
    assert find_protocol("complexity").metrics["diffusion_li"].unit == ions.unit


def test_dynamics_are_compared_with_the_top_of_the_ladder():
    top = moving(0.3, 1)
    same = {each.metric: each.interval for each in below(moving(0.3, 2), top)}
    assert set(same) == set(BELOW)
    for metric in ("rdf_below", "spectrum_below"):
        assert same[metric].low < 0 < same[metric].high < 1e-3
    # pairs of replicas share their chance
    assert abs(same["diffusion_li_below"].value) < 1e-9
    other = {each.metric: each.interval for each in below(moving(0.5, 3, peak=2.1, line=6.0), top)}
    assert other["diffusion_li_below"].value == pytest.approx(2.0)
    assert other["diffusion_below"].value == pytest.approx(0.1)
    for metric in ("rdf_below", "spectrum_below"):
        assert other[metric].low > same[metric].high
    declared = find_protocol("complexity").metrics
    for metric, unit in BELOW.items():
        assert (declared[metric].unit, declared[metric].top) == (unit, True)


def test_the_spectrum_of_a_trajectory_is_drawn():
    data = moving(0.3, 1).assign_coords(time=("time", np.linspace(0.0, 1.0, 5)))
    data["reference_rdf"] = data.reference_rdf_blocks.mean("block")
    drawn = {plot.key: plot for plot in plots(data)}
    assert {"rdf", "displacement", "spectrum"} <= set(drawn)
    data["explosion_time"][:] = 0.1
    assert "spectrum" not in {plot.key for plot in plots(data)}


def exploded(data, *lost):
    """The same with replicas that exploded."""
    data = data.copy(deep=True)
    for replica in lost:
        data["explosion_time"][replica] = 0.1
        for name in ("rdf", "spectrum", "displacement_of", "mean_squared_displacement"):
            data[name][replica] = np.nan
    return data


def test_replicas_that_exploded_under_either_are_left_out():
    data, top = moving(0.5, 2), moving(0.3, 1).assign_attrs(top="net")
    found = below(exploded(data, 0), exploded(top, 3))
    assert all(each.outcome is Outcome.EXPLODED and each.interval.n == 6 for each in found)
    assert {each.reason for each in found} == {"1 of 7 replicas exploded and are left out"}
    assert {each.outcome for each in below(exploded(data, *range(8)), top)} == {Outcome.EXPLODED}


def test_explosions_of_the_top_are_not_held_against_a_rung():
    data, top = moving(0.5, 2).assign_attrs(top="net"), moving(0.3, 1)
    found = below(data, exploded(top, 3))
    assert all(each.outcome is Outcome.COMPLETED and each.interval.n == 7 for each in found)
    found = below(data, exploded(top, *range(8)))
    assert {(each.outcome, each.reason) for each in found} == {(Outcome.UNSUPPORTED, "all replicas of net exploded")}


def test_a_crystal_at_rest_has_nothing_to_compare():
    still = xr.Dataset()
    assert {each.outcome for each in below(still, moving(0.3, 1))} == {Outcome.UNSUPPORTED}
    cold = moving(0.3, 1).assign(is_crystal=((), True))
    assert [each.metric for each in below(cold, cold) if each.interval] == ["rdf_below", "spectrum_below"]
    silicon = moving(0.3, 1).assign_coords(element=["Si", "C"])
    assert [each.metric for each in below(silicon, silicon) if not each.interval] == ["diffusion_li_below"]
    assert [each.metric for each in judge(silicon)[-2:]] == ["diffusion_li", "step_time"]


def test_groups_of_the_card_are_those_of_the_labels():
    """Descriptions of mlearn's frames: those with a vacancy are of dynamics too."""
    card = find_protocol("complexity")
    asked = build(Settings, card.settings("standard", "si-64"), "standard")
    expected = {
        "AIMD-NVT Snapshot 40000 of 100000 of AIMD NVT simulation for normal structure at 843 K": "solid",
        "AIMD-NVT Snapshot 80000 of 100000 of AIMD NVT simulation for normal structure at 3374 K": "liquid",
        "Elastic Si 2x2x2 cell, mode 0, strain -0.06": "strained",
        "Vacancy Snapshot 7 of 32 of Vacancy AIMD NVT simulation at 300 K": "vacancy",
        "Vacancy Snapshot 14 of 32 of Vacancy AIMD NVT simulation at 3374 K": "vacancy",
        "Surface Si_surface_mp/Si_mp-149_(3_2_1)": "surface",
    }
    assert {text: asked.group_of(text) for text in expected} == expected


def test_the_jackknife_of_energies_fits_zeros_again():
    """Of one element the zero is the mean, and the mean square error the variance, whose jackknife is on paper."""
    missed = np.random.default_rng(3).normal(size=12)
    data = xr.Dataset(
        {
            "energy": ("frame", 8e-3 * missed),
            "energy_label": ("frame", np.zeros(12)),
            "atoms_of": (("frame", "label_element"), np.full((12, 1), 8)),
            "trajectory": ("frame", np.arange(12)),
        }
    )
    found = energy_error(data, np.ones(12, dtype=bool))
    assert found.value == pytest.approx(missed.std())
    # the jackknife variance of the variance, from its influence values
    squares = (missed - missed.mean()) ** 2
    left_out = (12 * squares.mean() - 12 / 11 * squares) / 11
    error = np.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.high**2 == pytest.approx(missed.var() + stats.t.ppf(0.975, 11) * error)
