"""Result files appear whole or not at all, and open as one tree."""

import errno
import os

import numpy as np
import pytest
import xarray as xr

from conservbench import result
from conservbench.result import (
    ResultError,
    WriteError,
    open_results,
    read_attributes,
    read_result,
    result_path,
    write_result,
)


def cell(value: float, **attrs: str) -> xr.Dataset:
    energy = xr.Variable(("replica", "time"), np.full((2, 3), value), {"units": "eV", "long_name": "energy"})
    return xr.Dataset({"energy": energy}, attrs={"outcome": "completed", **attrs})


def test_round_trip(tmp_path):
    path = result_path(tmp_path, "nve", "si-64", "toy")
    write_result(cell(1 / 3), path)
    assert path == tmp_path / "nve" / "si-64" / "toy.nc"
    xr.testing.assert_identical(read_result(path), cell(1 / 3))
    assert read_result(path)["energy"].attrs["units"] == "eV"
    assert read_attributes(path) == {"outcome": "completed"}


def test_tree_has_a_group_a_cell_and_names_survive_the_file_system(tmp_path):
    names = ["toy", "ase:a.b:c", "name.with-every_sign", "50%3Aodd"]
    for number, name in enumerate(names):
        path = result_path(tmp_path, "nve", "si-64", name)
        assert not set(path.name) & set(':/\\<>"|?*')
        write_result(cell(number), path)
    tree = open_results(tmp_path)
    assert set(tree["nve/si-64"].children) == set(names)
    for number, name in enumerate(names):
        assert float(tree[f"nve/si-64/{name}"]["energy"][0, 0]) == number


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = result_path(tmp_path, "nve", "si-64", "toy")
    write_result(cell(1.0), path)
    whole = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"cannot write .*toy\.nc: No space left on device"):
        write_result(cell(2.0), path)
    assert path.read_bytes() == whole
    assert [file.name for file in path.parent.iterdir()] == ["toy.nc"]


def test_temporary_files_of_a_killed_run_are_no_results(tmp_path):
    write_result(cell(1.0), result_path(tmp_path, "nve", "si-64", "toy"))
    (tmp_path / "nve" / "si-64" / ".other.nc.123.tmp").write_bytes(b"half")
    assert list(open_results(tmp_path)["nve/si-64"].children) == ["toy"]


def test_broken_files_are_named_and_left_out(tmp_path):
    good = result_path(tmp_path, "nve", "si-64", "toy")
    write_result(cell(1.0), good)
    short = result_path(tmp_path, "nve", "si-64", "short")
    short.write_bytes(good.read_bytes()[:500])
    foreign = result_path(tmp_path, "nve", "si-64", "foreign")
    xr.Dataset({"x": 1.0}).to_netcdf(foreign, engine="h5netcdf")
    for read in (read_result, read_attributes):
        with pytest.raises(ResultError, match=r"short\.nc: not a readable result file"):
            read(short)
        with pytest.raises(ResultError, match=r"foreign\.nc: not a result file: attribute 'outcome' is missing"):
            read(foreign)
        with pytest.raises(ResultError, match="no result file"):
            read(tmp_path / "nothing.nc")
    with pytest.warns(UserWarning, match=r"left out: .*(short|foreign)\.nc") as seen:
        tree = open_results(tmp_path)
    assert len(seen) == 2
    assert list(tree["nve/si-64"].children) == ["toy"]


def test_folders_that_hold_no_results(tmp_path):
    with pytest.raises(ResultError, match="no results folder"):
        open_results(tmp_path / "nowhere")
    (tmp_path / "notes.nc").write_text("x")
    with pytest.raises(ResultError, match="is not a results folder"):
        open_results(tmp_path)


def test_a_replaced_file_is_read_anew(tmp_path):
    path = result_path(tmp_path, "nve", "si-64", "toy")
    for value in (1.0, 2.0):
        write_result(cell(value), path)
        assert float(open_results(tmp_path)["nve/si-64/toy"]["energy"][0, 0]) == value


def test_suffix_is_netcdf():
    assert result.SUFFIX == ".nc"
