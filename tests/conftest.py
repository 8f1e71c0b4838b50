"""One thread a process, set before torch is imported: two processes on two cores then take half the time."""

from conservbench import process

process.configure()
