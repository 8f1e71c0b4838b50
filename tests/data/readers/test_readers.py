"""Every reader on files written by hand, and what it says of those that are broken."""

import gzip
import json
import lzma
import sys
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.units import GPa

from conservbench.data import readers
from conservbench.data.catalogue import DataSet, find_data_set
from conservbench.data.frames import load_all, load_frames
from conservbench.data.readers import load_atoms
from conservbench.data.readers.phonopy import read_force_constants

FRAME = (
    "2\n"
    'Lattice="5 0 0 0 6 0 0 0 7" Properties=species:S:1:pos:R:3:forces:R:3 energy=-2.5 '
    'group=hot temperature=300.0 split=test stress="1 0 0 0 2 0 0 0 3" pbc="T T T"\n'
    "Ga 1.5 2.0 -3.25 1.0 -0.5 0.25\n"
    "N 0.0 0.0 0.0 -1.0 0.5 -0.25\n"
)


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".extxyz.xz", ".xyz.gz"])
def test_extended_xyz(tmp_path, suffix):
    path = tmp_path / f"two{suffix}"
    pack = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
    path.write_bytes(pack((2 * FRAME).encode()))
    frames = readers.read("extxyz", path)
    assert len(frames) == 2
    atoms = frames[1]
    assert atoms.get_chemical_formula() == "GaN"
    assert atoms.get_potential_energy() == -2.5
    np.testing.assert_array_equal(atoms.get_forces(), [[1.0, -0.5, 0.25], [-1.0, 0.5, -0.25]])
    np.testing.assert_array_equal(atoms.get_stress(), [1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(atoms.positions[0], [1.5, 2.0, -3.25])
    assert atoms.info == {"group": "hot", "temperature": 300.0, "split": "test"}
    assert atoms.pbc.all()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text[:-30], "frame 2: cut off: 1 of 2 atoms|frame 2: not as the format"),
        (lambda text: text[:-2], "frame 2: cut off, or its last line has no end"),
        (lambda text: text[: text.rindex("N 0.0")], "frame 2: cut off: 1 of 2 atoms"),
        (lambda text: text[: text.rindex("Ga 1.5")], "frame 2: cut off: 0 of 2 atoms"),
        (lambda text: text.replace("Ga", "Gq", 1), "frame 0: unknown element 'Gq'"),
        (lambda text: FRAME + text.replace("2\n", "two\n", 1), "frame 1: expected a number of atoms, found 'two'"),
        (lambda text: text.replace("0.25\n", "0.2x\n", 1), "frame 0: not as the format has it"),
        (lambda text: text.replace(":forces:", ":dft_forces:"), "frame 0: no forces, but 'dft_forces'"),
        (lambda text: text.replace("energy=", "dft_energy="), "frame 0: no energy, but 'dft_energy'"),
        (
            lambda text: text.replace("energy=-2.5", "energy=abc"),
            "frame 0: energy is abc; expected a number|frame 0: not as",
        ),
        (lambda text: text.replace("energy=-2.5", 'energy="1 2 3"'), "frame 0: energy is .* expected a number"),
        (lambda text: text.replace("temperature=300", "temperature=hot"), "frame 0: temperature is hot"),
        (lambda text: text.replace("split=test", "split=tset"), "frame 0: split=tset; expected one of train, test"),
        (lambda text: "", "no frames"),
    ],
)
def test_broken_extended_xyz_is_told_with_its_frame(tmp_path, spoil, reason):
    path = tmp_path / "three.xyz"
    path.write_text(spoil(3 * FRAME))
    with pytest.raises(ValueError, match=f"three.xyz: ({reason})"):
        readers.read("extxyz", path)


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress)])
def test_cut_off_archives_are_told(tmp_path, suffix, pack):
    path = tmp_path / f"cut.xyz{suffix}"
    path.write_bytes(pack((200 * FRAME).encode())[:-20])
    with pytest.raises(ValueError, match=r"cut\.xyz.*: cut off or damaged"):
        readers.read("extxyz", path)


def test_frames_without_labels_are_refused_with_file_and_frame(tmp_path):
    path = tmp_path / "mine.xyz"
    path.write_text(FRAME + FRAME.replace("energy=-2.5", ""))
    with pytest.raises(ValueError, match=r"mine\.xyz: frame 1: no energy"):
        load_all(find_data_set(str(path)))
    path.write_text(FRAME + FRAME.replace("0.5 -0.25\n", "nan -0.25\n"))
    with pytest.raises(ValueError, match=r"mine\.xyz: frame 1: the force on atom 1 is not finite"):
        load_all(find_data_set(str(path)))


def test_fitsnap_header_and_group(tmp_path):
    path = tmp_path / "melt.xyz"
    frame = (
        "2\n"
        'Lattice = "10.8618 0.0 0.0          0.0 10.8618 0.0          0.0 0.0 10.8618" '
        'Properties=species:S:1:pos:R:3:forces:R:3 energy=-2.5 stress = "1 0 0  0 2 0  0 0 3"\n'
        "Si 7.5 10.0 -12.25 1.0 -0.5 0.25\n"
        "Si 0.0 0.0 0.0 -1.0 0.5 -0.25\n"
    )
    path.write_text(2 * frame)
    frames = readers.read("fitsnap", path)
    assert len(frames) == 2
    assert frames[0].get_potential_energy() == -2.5
    np.testing.assert_array_equal(frames[1].get_forces(), [[1.0, -0.5, 0.25], [-1.0, 0.5, -0.25]])
    np.testing.assert_allclose(frames[0].cell.array, 10.8618 * np.eye(3))
    assert frames[0].pbc.all()
    assert frames[0].info["group"] == "melt"
    # kbar under compression are negative eV/Å^3 of ASE
    np.testing.assert_allclose(
        frames[0].get_stress(), [-0.1 * GPa, -0.2 * GPa, -0.3 * GPa, 0, 0, 0], rtol=1e-12, atol=0
    )


def mlearn_entry():
    sites = [{"species": [{"element": "Si", "occu": 1}], "xyz": [x, 0.0, 0.0]} for x in (0.0, 2.4)]
    return {
        "structure": {"lattice": {"matrix": (6 * np.eye(3)).tolist()}, "sites": sites},
        "group": "AIMD",
        "description": "at 300 K",
        "outputs": {"energy": -9.0, "forces": [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]},
    }


def test_mlearn(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([mlearn_entry()]))
    (atoms,) = readers.read("mlearn", path)
    assert atoms.info == {"group": "AIMD", "description": "at 300 K"}
    assert atoms.get_potential_energy() == -9.0
    assert atoms.get_forces()[0, 0] == 0.5
    broken = mlearn_entry()
    del broken["structure"]["lattice"]
    path.write_text(json.dumps([mlearn_entry(), broken]))
    with pytest.raises(ValueError, match=r"set\.json: frame 1: .*no key 'lattice'"):
        readers.read("mlearn", path)
    path.write_text(json.dumps([mlearn_entry()])[:-5])
    with pytest.raises(ValueError, match=r"set\.json: cut off or not JSON"):
        readers.read("mlearn", path)


@pytest.fixture
def system(tmp_path):
    """Two water molecules, two sets of two frames."""
    folder = tmp_path / "water"
    folder.mkdir()
    (folder / "type.raw").write_text("0\n1\n1\n0\n1\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    rng = np.random.default_rng(0)
    for number in range(2):
        part = folder / f"set.00{number}"
        part.mkdir()
        np.save(part / "box.npy", np.tile(10.0 * np.eye(3).ravel(), (2, 1)).astype(np.float32))
        np.save(part / "coord.npy", rng.normal(size=(2, 18)).astype(np.float32))
        np.save(part / "force.npy", rng.normal(size=(2, 18)).astype(np.float32))
        np.save(part / "energy.npy", np.array([-1.0, -2.0], dtype=np.float32))
    return folder


def test_deepmd(system):
    frames = readers.read("deepmd", system.parent)
    assert [atoms.get_potential_energy() for atoms in frames] == [-1.0, -2.0, -1.0, -2.0]
    assert frames[0].symbols.get_chemical_formula(mode="reduce") == "OH2OH2"
    assert {atoms.info["group"] for atoms in frames} == {"water"}
    force = np.load(system / "set.001" / "force.npy")
    np.testing.assert_array_equal(frames[3].get_forces(), force[1].reshape(6, 3))
    np.testing.assert_array_equal(frames[3].cell.array, 10.0 * np.eye(3))
    assert frames[3].pbc.all()
    (system / "nopbc").touch()
    assert not readers.read("deepmd", system)[0].pbc.any()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "set.000" / "force.npy").unlink(), "force.npy: no forces: no such file"),
        (lambda folder: (folder / "set.001" / "box.npy").unlink(), "box.npy: no such file"),
        (
            lambda folder: np.save(folder / "set.000" / "force.npy", np.zeros((2, 15))),
            r"shape is \(2, 15\), expected \(2, 18\)",
        ),
        (lambda folder: np.save(folder / "set.000" / "coord.npy", np.zeros((1, 18))), r"shape is \(1, 18\)"),
        (lambda folder: (folder / "type_map.raw").write_text("O\nXq\n"), "unknown element 'Xq'"),
        (lambda folder: (folder / "type_map.raw").write_text("O\n"), "expected indices of 1 elements"),
        (lambda folder: (folder / "type_map.raw").unlink(), "no file type_map.raw"),
        (
            lambda folder: (folder / "set.001" / "coord.npy").write_bytes(
                (folder / "set.001" / "coord.npy").read_bytes()[:-9]
            ),
            "coord.npy: cut off or not an array",
        ),
    ],
)
def test_broken_deepmd_is_told_with_its_file(system, spoil, reason):
    spoil(system)
    with pytest.raises(ValueError, match=reason):
        readers.read("deepmd", system)


def test_deepmd_water_itself(reference_data):
    frames = readers.read("deepmd", reference_data / "deepmd-water")
    assert len(frames) == 400
    assert {atoms.get_chemical_formula() for atoms in frames} == {"H128O64"}
    # 64 molecules at their density: each oxygen has two hydrogens within 1.3 Å
    distances = frames[0].get_all_distances(mic=True)[:64, 64:]
    assert ((distances < 1.3).sum(1) == 2).all()


def test_force_constants_are_read_as_phonopy_wrote_them(tmp_path):
    from phonopy.file_IO import write_FORCE_CONSTANTS

    expected = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    path = tmp_path / "FORCE_CONSTANTS"
    write_FORCE_CONSTANTS(expected, filename=path)
    np.testing.assert_allclose(read_force_constants(path), expected, atol=1e-14)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-4]))
    with pytest.raises(ValueError, match="all pairs of 3 atoms"):
        read_force_constants(path)


def test_unknown_reader_is_told():
    with pytest.raises(ValueError, match="no reader 'extxzy'; did you mean 'extxyz'"):
        readers.read("extxzy", None)


@pytest.fixture
def fake_package(monkeypatch):
    """In place of load-atoms: six structures of two kinds, in units that are wrong by a factor."""
    package = ModuleType("load_atoms")
    asked = []

    def load_dataset(name, root=None):
        asked.append((name, root))
        structures = []
        for index in range(6):
            atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
            atoms.info = {"name": "even" if index % 2 == 0 else "odd", "energy": -2.0 * index}
            atoms.arrays["forces"] = np.full((2, 3), 0.5)
            structures.append(atoms)
        return structures

    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "load_atoms", package)
    monkeypatch.setattr(load_atoms, "version", lambda name: "0.3.10")
    return package, asked


def hosted(**options):
    return DataSet("hosted", "", "load_atoms", "", "", "", "", "", {}, "every 3rd", {"dataset": "Some-Set", **options})


def test_hosted_sets_are_chosen_scaled_and_split(fake_package):
    _, asked = fake_package
    entry = hosted(where={"name": "even"}, group="name", factor=0.5, version="0.3.10")
    frames = load_all(entry)
    assert [atoms.get_potential_energy() for atoms in frames] == [0.0, -2.0, -4.0]
    np.testing.assert_array_equal(frames[0].get_forces(), 0.25)
    assert frames[0].info == {"group": "even"}
    assert [len(load_frames(entry, split)) for split in ("train", "test")] == [2, 1]
    assert asked[0][0] == "Some-Set"
    assert len(load_all(hosted(every=2))) == 3


def test_hosted_sets_that_cannot_be_had(fake_package, monkeypatch):
    package, _ = fake_package
    with pytest.raises(ValueError, match=r"no structures with \{'name': 'none'\} in Some-Set"):
        load_all(hosted(where={"name": "none"}))
    with pytest.raises(ValueError, match=r"checked with load-atoms 0.3.11; 0.3.10 is installed"):
        load_all(hosted(version="0.3.11"))

    def fail(name, root=None):
        raise ConnectionError("no network")

    monkeypatch.setattr(package, "load_dataset", fail)
    with pytest.raises(OSError, match="hosted: load-atoms cannot provide 'Some-Set': no network"):
        load_all(hosted())

    def warn(name, root=None):
        import warnings

        warnings.warn("Checksum mismatch for file: x", stacklevel=1)
        return []

    monkeypatch.setattr(package, "load_dataset", warn)
    with pytest.raises(ValueError, match="hosted: Checksum mismatch"):
        load_all(hosted())


def test_hosted_sets_without_the_package(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(load_atoms, "version", missing)
    with pytest.raises(ValueError, match=r"pip install 'conservbench\[load-atoms\]'"):
        load_all(hosted())
