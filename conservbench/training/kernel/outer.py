"""Hyperparameters by an outer level of differentiation: lower the error of forces that the solution has not seen."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from conservbench.hint import did_you_mean
from conservbench.models.kernel.kernel import Kernel, Points, matrix
from conservbench.training.kernel.recipe import Outer
from conservbench.training.kernel.solve import solve


def validation_error(
    kernel: Kernel, seen: tuple[Points, Tensor], unseen: tuple[Points, Tensor], added: Tensor
) -> Tensor:
    """Mean square error of forces on unseen structures, differentiable by all that the kernel is made of.

    Args:
        kernel: of structures.
        seen: training points and their targets (sum of widths,).
        unseen: others, forces alone.
        added: scalar, added to the diagonal.
    """
    points, targets = seen
    coefficients = solve(matrix(kernel, points), added.expand(len(targets)), targets)
    return (matrix(kernel, unseen[0], points) @ coefficients - unseen[1]).square().mean()


def learn(
    kernel: Kernel, regularization: float, seen: tuple[Points, Tensor], unseen: tuple[Points, Tensor], outer: Outer
) -> tuple[Kernel, float, list[float]]:
    """Lower the validation error by Adam, in the logarithms of the hyperparameters.

    Args:
        kernel: to start from.
        regularization: likewise.
        seen: training points and their targets.
        unseen: others, forces alone.
        outer: what is learned, and how.

    Returns:
        The kernel and the regularisation of the lowest error, and the errors of every step.

    Raises:
        ValueError: a name is that of no hyperparameter, or one starts from zero or below.
    """
    start = {"length": kernel.length, "regularization": torch.tensor(regularization, dtype=torch.float64)}
    start.update(kernel.learned)
    for name in outer.learn:
        if name not in start:
            raise ValueError(f"learn: no hyperparameter {name!r}{did_you_mean(name, start)}")
        if not float(start[name]) > 0:
            raise ValueError(f"learn: {name} is {float(start[name])}; its logarithm is learned, so start above zero")
    logs = {name: start[name].log().clone().requires_grad_(True) for name in outer.learn}
    optimizer = torch.optim.Adam(list(logs.values()), lr=outer.learning_rate)
    best, errors = (kernel, regularization), []
    for _ in range(outer.steps):
        now = {**start, **{name: value.exp() for name, value in logs.items()}}
        here = replace(kernel, length=now["length"], learned={name: now[name] for name in kernel.learned})
        error = validation_error(here, seen, unseen, now["regularization"])
        errors.append(float(error.detach()))
        if errors[-1] == min(errors):
            plain = {name: value.detach() for name, value in now.items()}
            settled = replace(kernel, length=plain["length"], learned={name: plain[name] for name in kernel.learned})
            best = (settled, float(plain["regularization"]))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return (*best, errors)
