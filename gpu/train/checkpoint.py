"""Files that are whole or not there: each is written under another name, then renamed.

A checkpoint is one safetensors file: tensors, and a JSON record beside them. Nothing is unpickled on the way back.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor
from torch.optim import Optimizer

from gpu.train.errors import CheckpointError

Tensors = dict[str, Tensor]


def write_text(path: Path, text: str) -> None:
    """Replace the file by `text`, all at once."""
    part = _beside(path)
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`, all at once. `record` is anything that JSON holds."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    part = _beside(path)
    part.write_bytes(serialise(held, metadata={"record": text, "digest": _digest(held, text)}))
    os.replace(part, path)


def load(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors (on the CPU) and the record of a checkpoint.

    Raises CheckpointError for a file that is damaged, be it by one bit, or that is no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: in the file tensors are aligned to 8 bytes only, and alignment may decide how sums are rounded.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({error}); remove it to start this run anew"
        ) from error
    text = metadata.get("record", "")
    if metadata.get("digest") != _digest(tensors, text):
        raise CheckpointError(f"{path}: damaged, its digest does not match; remove it to start this run anew")
    return tensors, json.loads(text)


def pack_optimizer(optimizer: Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state_dict as tensors named optimizer.INDEX.KEY, and all the rest of it for JSON."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    rest: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        held = rest[str(index)] = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif isinstance(value, list):  # the history of L-BFGS; what is no tensor in it is None
                tensors |= {f"optimizer.{index}.{key}.{n}": t for n, t in enumerate(value) if t is not None}
                held[key] = [None] * len(value)
            else:
                held[key] = value
    return tensors, {"state": rest, "param_groups": state["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Load what `pack_optimizer` gave into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in record["state"].items()}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, key, *place = rest.split(".")
            if place:
                state[int(index)][key][int(place[0])] = tensor
            else:
                state[int(index)][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": record["param_groups"]})


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
