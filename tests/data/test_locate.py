"""Files are found in the local folder, then in the package, then at home; and count with their checksum alone."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conservbench.data import locate as locate_module
from conservbench.data.catalogue import DataFile, DataFolder, DataSet
from conservbench.data.locate import DATA_VARIABLE, fetch, locate, present


def digest(content):
    return hashlib.sha256(content).hexdigest()


def entry(files):
    return DataSet("set", "", "extxyz", "", "", "", "", "", files)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A public home on this machine, an empty cache and no local folder."""
    folder = tmp_path / "home"
    (folder / "parts").mkdir(parents=True)
    contents = {"one.xyz": b"one", "parts/a.npy": b"a", "parts/b.npy": b"bb"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(locate_module, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(locate_module, "shipped_folder", lambda: tmp_path / "shipped")
    parts = {name.removeprefix("parts/"): digest(content) for name, content in contents.items() if "/" in name}
    yield entry(
        {
            "one": DataFile("one.xyz", f"{url}/one.xyz", digest(b"one")),
            "wrong": DataFile("wrong.xyz", f"{url}/one.xyz", digest(b"two")),
            "gone": DataFile("gone.xyz", f"{url}/gone.xyz", digest(b"one")),
            "parts": DataFolder("parts", f"{url}/parts", parts),
        }
    )
    server.shutdown()
    server.server_close()


def test_local_folder_then_package_then_home(home, tmp_path, monkeypatch):
    assert locate(home, "one") == tmp_path / "cache" / "one.xyz"
    for name in ("shipped", "local"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.xyz").write_bytes(b"one")
    assert locate(home, "one") == tmp_path / "shipped" / "one.xyz"
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "local"))
    assert locate(home, "one") == tmp_path / "local" / "one.xyz"


def test_wrong_and_partial_downloads_never_count(home, tmp_path):
    with pytest.raises(ValueError, match="hash"):
        locate(home, "wrong")
    with pytest.raises(OSError, match=r"set: cannot download http.*gone.xyz .*CONSERVBENCH_DATA"):
        locate(home, "gone")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    # what lies in the cache and is not the file is fetched again
    (tmp_path / "cache" / "one.xyz").write_bytes(b"on")
    assert present(home.files["one"]) is None
    assert locate(home, "one").read_bytes() == b"one"


def test_wrong_local_file_is_told(home, tmp_path, monkeypatch):
    (tmp_path / "one.xyz").write_bytes(b"on")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"one.xyz: wrong checksum [0-9a-f]{12}\.\.\., expected"):
        locate(home, "one")


def test_folders_are_whole_or_fetched(home, tmp_path, monkeypatch):
    local = tmp_path / "local"
    (local / "parts").mkdir(parents=True)
    (local / "parts" / "a.npy").write_bytes(b"a")
    monkeypatch.setenv(DATA_VARIABLE, str(local))
    found = locate(home, "parts")
    assert found == tmp_path / "cache" / "parts"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"a.npy": b"a", "b.npy": b"bb"}
    (local / "parts" / "b.npy").write_bytes(b"bb")
    assert locate(home, "parts") == local / "parts"
    (local / "parts" / "nopbc").touch()
    with pytest.raises(ValueError, match="nopbc: not a file of the data set; move it out of"):
        locate(home, "parts")
    (local / "parts" / "nopbc").unlink()
    (local / "parts" / "b.npy").write_bytes(b"b")
    with pytest.raises(ValueError, match="wrong checksum"):
        locate(home, "parts")


def test_fetch_copies_into_a_folder_that_serves_as_the_local_one(home, tmp_path, monkeypatch):
    told = []
    good = entry({name: home.files[name] for name in ("one", "parts")})
    paths = fetch(good, tmp_path / "mine", lambda *words: told.append(words))
    assert told == [(1, 3, "one.xyz"), (2, 3, "parts/a.npy"), (3, 3, "parts/b.npy")]
    assert [path.relative_to(tmp_path / "mine").as_posix() for path in paths] == [words[2] for words in told]
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "mine"))
    assert locate(good, "parts") == tmp_path / "mine" / "parts"
    with pytest.raises(ValueError, match="hash"):
        fetch(home, tmp_path / "other")
    assert not (tmp_path / "other" / "wrong.xyz").exists()


def test_unknown_file_of_a_data_set_is_named(home):
    with pytest.raises(ValueError, match="set has no file 'ones'; did you mean 'one'"):
        locate(home, "ones")


def test_a_shipped_file_that_is_not_there_says_so(home):
    with pytest.raises(OSError, match="no public address"):
        locate(entry({"frames": DataFile("made.extxyz.xz", "", digest(b"x"))}), "frames")
