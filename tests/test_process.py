"""Start-up choices happen when asked for, and keep standard output clean."""

import os
import subprocess
import sys
import warnings

import pytest

from conservbench import process


def test_configure_is_no_import_side_effect():
    code = (
        "import os, conservbench.runner\n"
        "assert 'OMP_NUM_THREADS' not in os.environ\n"
        "from conservbench import process; process.configure()\n"
        "import torch; print(torch.get_num_threads())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"


def test_malloc_is_tuned_on_glibc_only(monkeypatch):
    calls = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            calls.append((option, value))

    monkeypatch.setattr(process.ctypes, "CDLL", Library)
    monkeypatch.setattr(process.sys, "platform", "linux")
    monkeypatch.setattr(process.platform, "libc_ver", lambda: ("glibc", "2.36"))
    process.keep_freed_memory()
    assert calls == [(-4, 0), (-1, 2**31 - 1), (-2, 67108864)]
    monkeypatch.setattr(process.platform, "libc_ver", lambda: ("", ""))
    process.keep_freed_memory()
    assert len(calls) == 3


def test_noise_of_third_parties(capsys):
    with warnings.catch_warnings(record=True) as heard, process.quiet_stdout():
        warnings.simplefilter("always")
        print("shown")
        with process.quiet_loading():
            print("dropped")
            warnings.warn("The TorchScript type system doesn't support instance-level annotations on ...", stacklevel=1)
            warnings.warn("something a user should know", stacklevel=1)
    assert capsys.readouterr() == ("", "shown\n")
    assert [str(one.message) for one in heard] == ["something a user should know"]


def test_devices(monkeypatch):
    for device in ["cpu", "cpu:0", "meta"]:
        process.check_device(device)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    process.check_device("cuda:1")
    with pytest.raises(ValueError, match="no such CUDA device here; the last is 'cuda:1'"):
        process.check_device("cuda:2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda': no CUDA device here"):
        process.check_device("cuda")
    with pytest.raises(ValueError, match="unknown device 'cud'; expected cpu"):
        process.check_device("cud")


def test_usable_cores():
    assert 1 <= process.usable_cores() <= os.cpu_count()


def test_one_process_at_a_time(tmp_path):
    lock = tmp_path / "folder" / "lock"
    hold = (
        "import sys, pathlib; from conservbench import process\n"
        "with process.alone(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(process.BusyError, match="held by another process"), process.alone_at_once(lock):
            pass
        other.kill()
    # the system gives back what a process that died held
    with process.alone_at_once(lock):
        pass
    with process.alone(lock):
        pass
