"""One system under i-PI with two forces of one of our models: a script, so that i-PI has a process of its own.

Usage: ipi_run.py WORK, a folder with job.json, start.npz (positions in Å, momenta in internal units), and results.npz
after. i-PI imports this file a second time for its driver.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

__DRIVER_NAME__ = "conservbench"
__DRIVER_CLASS__ = "Driver"


class Driver:
    """One force channel of a model card, in i-PI's units."""

    def __init__(self, job, channel, **_):
        from conservbench.cards import find_model
        from conservbench.dynamics.forces import force_of
        from conservbench.models.load import load_model
        from conservbench.state import from_atoms
        from conservbench.systems import find_system

        torch.set_num_threads(1)
        self.job = json.loads(Path(job).read_text(encoding="utf-8"))
        system = find_system(self.job["system"])
        self.state = from_atoms(system.sites)
        self.force = force_of(load_model(find_model(self.job["model"]), system, dtype="float64"), channel)

    def __call__(self, cell, positions):
        from ipi.utils.units import unit_to_internal, unit_to_user

        at = self.state.replace(positions=torch.as_tensor(unit_to_user("length", "ase", positions)))
        forces, energy = self.force(at)
        # the energy of the fast model cancels: its weights at the two levels add up to zero
        pot = 0.0 if energy is None else float(energy[0])
        return (
            pot * unit_to_internal("energy", "ase", 1.0),
            forces.numpy() * unit_to_internal("force", "ase", 1.0),
            np.zeros((3, 3)),
            "{}",
        )


TEMPLATE = """
<simulation verbosity='quiet' safe_stride='1000000'>
  <ffdirect name='slow' threaded='false'>
    <pes>custom</pes> <pes_path>{script}</pes_path> <parameters> {{job: {job}, channel: gradient}} </parameters>
  </ffdirect>
  <ffdirect name='fast' threaded='false'>
    <pes>custom</pes> <pes_path>{script}</pes_path> <parameters> {{job: {job}, channel: direct}} </parameters>
  </ffdirect>
  <output prefix='simulation'>
    <properties stride='1' filename='out'> [ step, temperature{{kelvin}}, conserved{{electronvolt}} ] </properties>
  </output>
  <prng> <seed> {seed} </seed> </prng>
  <system>
    {beads}
    {cell}
    <ensemble> <temperature units='kelvin'> {temperature} </temperature> </ensemble>
    <forces>
      <force forcefield='slow'> <mts_weights> [1, 0] </mts_weights> </force>
      <force forcefield='fast'> <mts_weights> [-1, 1] </mts_weights> </force>
    </forces>
    <motion mode='dynamics'>
      <fixcom> {fixcom} </fixcom>
      <dynamics mode='{mode}'>
        <timestep units='ase'> {outer!r} </timestep>
        <nmts> [1, {stride}] </nmts>
        {thermostat}
      </dynamics>
    </motion>
  </system>
</simulation>
"""


def main(work):
    """Run the job of a folder."""
    from ipi.engine.beads import Beads
    from ipi.engine.cell import Cell
    from ipi.inputs.beads import InputBeads
    from ipi.inputs.cell import InputCell
    from ipi.scripting import InteractiveSimulation
    from ipi.utils.units import unit_to_internal, unit_to_user

    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    start = np.load(work / "start.npz")
    beads = Beads(nbeads=1, natoms=len(start["masses"]))
    beads.q = start["positions"].ravel() * unit_to_internal("length", "ase", 1.0)
    beads.p = start["momenta"].ravel() * unit_to_internal("momentum", "ase", 1.0)
    beads.m = start["masses"] * unit_to_internal("mass", "ase", 1.0)
    beads.names = start["symbols"]
    cell = Cell(h=start["cell"].T * unit_to_internal("length", "ase", 1.0))
    blocks = {"beads": (InputBeads(), beads), "cell": (InputCell(), cell)}
    for block, value in blocks.values():
        block.store(value)
    tau = job.get("tau")
    simulation = InteractiveSimulation(
        TEMPLATE.format(
            script=Path(__file__),
            job=work / "job.json",
            seed=job.get("seed", 1),
            temperature=job["temperature"],
            mode="nve" if tau is None else "nvt",
            fixcom=tau is not None,
            outer=job["outer"],
            stride=job["stride"],
            thermostat="" if tau is None else f"<thermostat mode='svr'> <tau units='ase'> {tau!r} </tau> </thermostat>",
            **{name: block.write(name) for name, (block, _) in blocks.items()},
        )
    )
    (system,) = simulation.syslist
    # an XML file carries eight digits
    for name in ("q", "p", "m"):
        getattr(system.beads, name)[:] = getattr(beads, name)
    system.cell.h = cell.h
    positions, momenta = [], []
    series = {"temperature": [], "potential": [], "kinetic_md": [], "conserved": []}
    for _ in range(job["n_outer"]):
        simulation.run(1, write_outputs=False)
        for name, values in series.items():
            values.append(float(simulation.properties(name)))
        if "tau" not in job:
            positions.append(np.array(system.beads.q[0]).reshape(-1, 3) * unit_to_user("length", "ase", 1.0))
            momenta.append(np.array(system.beads.p[0]).reshape(-1, 3) * unit_to_user("momentum", "ase", 1.0))
    np.savez(work / "results.npz", positions=positions, momenta=momenta, **series)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
