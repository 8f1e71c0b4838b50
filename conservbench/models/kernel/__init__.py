"""Kernel force fields: any differentiable descriptor, conservative by construction (arXiv 2208.12104)."""

from conservbench.models.kernel.model import KernelModel, load

__all__ = ["KernelModel", "load"]
