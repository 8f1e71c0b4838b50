"""Checkpoints of the suite's own models: one safetensors file, the settings as TOML text in its header.

Nothing is unpickled. Equal models give equal bytes: the header has one key, because safetensors writes several in
random order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from conservbench.result import write_bytes


def write_checkpoint(path: Path, kind: str, layout: int, settings: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: the file.
        kind: of the model, such as ``mace``.
        layout: of settings and tensors; raised when an old one would be read wrongly.
        settings: TOML text.
        tensors: by name.

    Raises:
        conservbench.result.WriteError: the file cannot be written.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(save(plain, metadata={f"conservbench-{kind}": f"format = {layout}\n{settings}"}), path)


def read_checkpoint(path: Path, kind: str, layout: int, what: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Read what :func:`write_checkpoint` wrote.

    Args:
        path: the file.
        kind: of the model.
        layout: that can be read.
        what: of the model, in words, for messages.

    Returns:
        The settings and the tensors.

    Raises:
        ValueError: the file is no checkpoint of this kind, or of another layout.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(f"conservbench-{kind}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
    if header is None:
        raise ValueError(f"{path}: not {what}")
    first, _, settings = header.partition("\n")
    if first != f"format = {layout}":
        raise ValueError(f"{path}: a checkpoint with {first!r}; this version reads format = {layout}")
    return settings, tensors
