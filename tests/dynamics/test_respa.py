"""r-RESPA against velocity Verlet, its exact propagator for linear forces, and the theory of its error."""

import numpy as np
import pytest
import torch

from conservbench.dynamics import respa, verlet
from conservbench.dynamics.forces import fast_and_slow_of, force_of
from conservbench.dynamics.integrator import integrator
from conservbench.models.toy import Field, ToyModel
from conservbench.models.two_models import TwoModels
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.units import FEMTOSECOND

STIFFNESS, CURL = 8.0, 0.8


def run(model, stride, dt, n_outer, state):
    fast, both = force_of(model, "direct"), fast_and_slow_of(model)
    md = respa.init(state, both)
    for _ in range(n_outer):
        md = respa.step(md, fast, both, dt, stride)
    return md


def run_verlet(model, channel, dt, n_steps, state):
    force = force_of(model, channel)
    md = verlet.init(state, force)
    for _ in range(n_steps):
        md = verlet.step(md, force, dt)
    return md


def assert_same_motion(one: State, other: State):
    assert float((one.positions - other.positions).abs().max()) < 1e-11
    assert float((one.momenta - other.momenta).abs().max()) < 1e-11


def test_stride_one_is_velocity_verlet_with_the_gradient(toy, crystal):
    model, state = toy("two-headed", CURL), crystal(2)
    assert_same_motion(run(model, 1, FEMTOSECOND, 100, state), run_verlet(model, "gradient", FEMTOSECOND, 100, state))


@pytest.mark.parametrize("stride", [2, 8])
def test_equal_channels_make_it_velocity_verlet(toy, crystal, stride):
    model, state = toy("two-headed", 0.0), crystal(2)
    assert_same_motion(
        run(model, stride, FEMTOSECOND, 80 // stride, state), run_verlet(model, "gradient", FEMTOSECOND, 80, state)
    )


def test_linear_forces_follow_the_product_of_kicks_and_drifts(toy, crystal, sites):
    """The splitting written out as matrices on (u, p): numpy, no loop of ours."""
    stride, dt, n_outer, state = 4, 2.0 * FEMTOSECOND, 10, crystal(1)
    mass = float(state.masses[0])
    n = sites.cell[2] / np.linalg.norm(sites.cell[2])
    curl = CURL * np.cross(np.eye(3), n).T @ -np.eye(3)
    assert curl @ [1.0, 0.0, 0.0] == pytest.approx(CURL * np.cross(n, [1.0, 0.0, 0.0]))
    one, zero = np.eye(3), np.zeros((3, 3))

    def kick(force, h):
        return np.block([[one, zero], [h * force, one]])

    def drift(h):
        return np.block([[one, h / mass * one], [zero, one]])

    slow, fast = -STIFFNESS * one, -STIFFNESS * one + curl
    inner = kick(fast, dt / 2) @ drift(dt) @ kick(fast, dt / 2)
    edge = kick(slow - fast, stride * dt / 2)
    outer = edge @ np.linalg.matrix_power(inner, stride) @ edge
    start = state.positions.numpy() - sites.positions
    start = start - start.mean(0)
    expected = np.linalg.matrix_power(outer, n_outer) @ np.concatenate((start.T, state.momenta.numpy().T))
    md = run(toy("two-headed", CURL), stride, dt, n_outer, state)
    found = md.positions.numpy() - sites.positions
    np.testing.assert_allclose(found - found.mean(0), expected[:3].T, atol=1e-11)
    np.testing.assert_allclose(md.momenta.numpy(), expected[3:].T, atol=1e-11)


def test_error_is_of_order_two_in_the_outer_step(toy, crystal, sites):
    state, length, stride = crystal(1), 128 * FEMTOSECOND, 4
    omega = np.sqrt(STIFFNESS / float(state.masses[0]))
    start = state.positions.numpy() - sites.positions
    start -= start.mean(0)
    exact = start * np.cos(omega * length) + state.velocities.numpy() / omega * np.sin(omega * length)
    errors, counts = [], [16, 32, 64, 128]
    for n_outer in counts:
        md = run(toy("two-headed", CURL), stride, length / n_outer / stride, n_outer, state)
        found = md.positions.numpy() - sites.positions
        errors.append(np.abs(found - found.mean(0) - exact).max())
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("stiff", "strides"),
    # the corrected stiffness is 8: a fast force that is too soft resonates just before half its period, one that is
    # too stiff just after
    [(6.0, (8, 10, 12, 13, 14, 15, 16, 18, 20)), (10.0, (8, 10, 11, 12, 13, 15, 18))],
)
def test_resonance_is_where_the_trace_of_the_propagator_leaves_two(sites, crystal, stiff, strides):
    """A harmonic slow force on a harmonic fast one.

    The inner steps turn (x, v) by M a on an ellipse: cos a = 1 - (w dt)^2 / 2, axes 1 and b = sin a / dt, w of the fast
    force alone. The correction kicks v by -c x, c = M dt (k - k_fast) / m, half before and half after. The product has
    the determinant 1 and the trace 2 cos M a - c sin(M a) / b. Beyond 2 one eigenvalue is larger than one, and
    amplitudes grow by it at every outer step. Otherwise both lie on the unit circle, and amplitudes stay bounded.
    """
    dt, mass = 5.0 * FEMTOSECOND, float(crystal(1).masses[0])
    model = TwoModels(
        ToyModel(Field("harmonic", STIFFNESS), sites), ToyModel(Field("harmonic", stiff), sites), "gradient"
    )
    angle = np.arccos(1.0 - 0.5 * stiff / mass * dt**2)
    unstable = []
    for stride in strides:
        kick = stride * dt * (STIFFNESS - stiff) / mass
        trace = 2.0 * np.cos(stride * angle) - kick * np.sin(stride * angle) * dt / np.sin(angle)
        assert abs(abs(trace) - 2.0) > 0.02
        if abs(trace) > 2.0:
            unstable.append(stride)
            growth = 0.5 * (abs(trace) + np.sqrt(trace**2 - 4.0))
            # from 1e-6 Å to 0.1 Å: the other eigenvector has shrunk by as much
            sizes = amplitudes(model, stride, dt, round(np.log(1e5) / np.log(growth)), crystal(1), sites)
            assert sizes[-1] / sizes[-2] == pytest.approx(growth, rel=1e-6)
        else:
            # bounded by the condition of the eigenvectors, which is worst next to a resonance
            sizes = amplitudes(model, stride, dt, 60, crystal(1), sites)
            assert max(sizes) < 20.0 * sizes[0]
    assert unstable
    assert all((stride < np.pi / angle) == (stiff < STIFFNESS) for stride in unstable)


def amplitudes(model, stride, dt, n_outer, state, sites):
    """Norm of (u, v), v over the frequency, at each outer step from a millionth of the thermal start."""
    fast, both = force_of(model, "direct"), fast_and_slow_of(model)
    still = torch.as_tensor(sites.positions)
    small = state.replace(positions=still + 1e-6 * (state.positions - still), momenta=1e-6 * state.momenta)
    md, found = respa.init(small, both), []
    for step in range(n_outer + 1):
        md = respa.step(md, fast, both, dt, stride) if step else md
        u = md.positions.numpy() - sites.positions
        v = md.momenta.numpy() / np.sqrt(STIFFNESS * float(md.masses[0]))
        found.append(np.sqrt(((u - u.mean(0)) ** 2).sum() + (v**2).sum()))
    return found


def test_a_curl_that_is_corrected_grows_in_third_order_only(toy, sites):
    """Across n = z the swirl turns z = x + i y by W^2 = (k - i s) / m: angles and ellipse above become complex.

    The trace is 2 cos M a - c sin(M a) / b with c = i M dt s / m. Odd orders in s are its imaginary part, by which the
    eigenvalues leave the unit circle; the first cancels between the fast force and its correction.
    """
    stride, dt, mass = 8, 2.0 * FEMTOSECOND, float(from_atoms(sites).masses[0])

    def from_theory(curl):
        angle = np.arccos(1.0 - 0.5 * (STIFFNESS - 1j * curl) / mass * dt**2)
        kick = 1j * stride * dt * curl / mass
        return 2.0 * np.cos(stride * angle) - kick * np.sin(stride * angle) * dt / np.sin(angle)

    def measured(curl):
        """One outer step of two atoms against each other, first from a displacement along x, then from a velocity."""
        start = from_atoms(sites)
        kicked = torch.zeros_like(start.positions)
        kicked[:2, 0] = torch.tensor([0.1, -0.1], dtype=torch.float64)
        moved = run(toy("two-headed", curl), stride, dt, 1, start.replace(positions=start.positions + kicked))
        pushed = run(toy("two-headed", curl), stride, dt, 1, start.replace(momenta=mass * kicked))
        u = (moved.positions - start.positions)[0] / 0.1
        v = pushed.velocities[0] / 0.1
        return complex(u[0] + v[0], u[1] + v[1])

    curls = np.array([0.1, 0.2, 0.4, 0.8])
    growths = []
    for curl in curls:
        trace = measured(curl)
        assert trace == pytest.approx(from_theory(curl), abs=1e-11)
        growths.append(np.log(np.abs(np.roots([1.0, -trace, 1.0])).max()))
    assert np.polyfit(np.log(curls), np.log(growths), 1)[0] == pytest.approx(3.0, abs=0.05)


def test_it_keeps_the_energy_that_direct_forces_do_not(toy, crystal):
    model, state = toy("two-headed", CURL), crystal(1)

    def energy(md):
        return float(md.energy + kinetic_energy(md))

    before = energy(respa.init(state, fast_and_slow_of(model)))
    # 800 fs: bounded by the error of one outer step, (w M dt)^2 / 8 = 0.6 %
    assert energy(run(model, 4, FEMTOSECOND, 200, state)) == pytest.approx(before, rel=0.01)
    assert energy(run_verlet(model, "direct", FEMTOSECOND, 800, state)) > 2 * before


class Counting:
    """A model that counts its calls."""

    def __init__(self, model):
        self.model = model
        self.channels, self.elements = model.channels, model.elements
        self.differentiable, self.labelled, self.device = model.differentiable, model.labelled, model.device
        self.asked = []

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        self.asked.append(tuple(forces))
        return self.model.evaluate(state, forces=forces)


def test_an_outer_step_costs_stride_calls_and_one_with_both_forces(toy, crystal):
    model = Counting(toy("two-headed", CURL))
    engine = integrator(model, Scheme("mts", 4))
    md = engine.init(crystal(1))
    model.asked.clear()
    engine.step(md, FEMTOSECOND)
    assert model.asked == [("direct",)] * 3 + [("direct", "gradient")]


def test_taking_some_systems_keeps_both_forces(toy, crystal):
    md = respa.init(crystal(3), fast_and_slow_of(toy("two-headed", CURL)))
    part = md.take([2, 0])
    assert part.replica == (2, 0)
    assert torch.equal(part.correction, torch.cat((md.correction[16:], md.correction[:8])))
    assert torch.equal(part.forces, torch.cat((md.forces[16:], md.forces[:8])))
    assert torch.equal(part.energy, md.energy[[2, 0]])
