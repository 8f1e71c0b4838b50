"""The wheel holds the cards and declares the plugins, and imports stay light."""

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from conservbench.cards import list_models, list_protocols

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_card_and_what_cards_name(wheel):
    names = set(wheel.namelist())
    for kind in ("models", "protocols"):
        here = {path.relative_to(ROOT / kind).as_posix() for path in (ROOT / kind).rglob("*.*") if path.is_file()}
        assert {f"conservbench/_cards/{kind}/{name}" for name in here} <= names
        assert any(name.endswith(".toml") for name in here)


def test_wheel_holds_code_and_its_data_and_no_tests(wheel):
    names = set(wheel.namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conservbench").rglob("*.*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= names
    assert not [name for name in names if name.startswith(("tests/", "leaderboard/", "."))]


def test_wheel_declares_command_and_plugins(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert points["console_scripts"]["conservbench"] == "conservbench.cli:main"
    loaders = {"ase", "descriptor", "edip", "kernel", "mace", "metatomic", "stillinger_weber", "toy"}
    assert set(points["conservbench.models"]) == loaders
    protocols = {"audit", "complexity", "fidelity", "finetune", "mts", "nve", "relax", "speed", "thermostat"}
    assert set(points["conservbench.protocols"]) == protocols


def test_an_unpacked_wheel_finds_its_cards(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = "import conservbench.cards as cards; print(cards.__file__, *cards.list_models(), *cards.list_protocols())"
    # -P keeps the checkout off the path
    python = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    file, *cards = subprocess.run(python, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert Path(file).parent.parent == tmp_path
    assert cards == [*list_models(), *list_protocols()]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("conservbench", {"torch", "ase", "mace", "xarray", "numpy", "scipy"}),
        ("conservbench.cards", {"torch", "ase", "mace", "xarray", "numpy", "scipy"}),
        ("conservbench.cli", {"torch", "ase", "mace", "xarray", "numpy", "scipy", "rich"}),
        ("conservbench.cli.score", {"torch", "ase", "mace", "xarray", "numpy", "scipy", "rich"}),
        ("conservbench.cli.board", {"torch", "ase", "mace", "xarray", "numpy", "scipy", "rich"}),
        ("conservbench.scoring", {"torch", "ase", "mace"}),
        ("conservbench.leaderboard.page", {"torch", "ase", "mace"}),
        ("conservbench.protocols.audit.judge", {"torch", "ase", "mace"}),
        ("conservbench.protocols.nve.judge", {"torch", "ase", "mace"}),
    ],
)
def test_imports_stay_light(module, unwanted):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted & set(loaded)
