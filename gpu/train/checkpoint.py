"""Files that are whole or not there: each is written under another name, then renamed.

A checkpoint is one safetensors file: tensors, and a JSON record beside them. Nothing is unpickled on the way back.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
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
    """An optimizer's state_dict as tensors named optimizer.INDEX.KEY or, in a list, optimizer.INDEX.KEY.PLACE, and all
    the rest of it for JSON, with null in the places of such tensors."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    rest: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        rest[str(index)] = {key: _plain(value) for key, value in values.items() if not isinstance(value, Tensor)}
        for key, value in values.items():
            named = {f"{key}.{k}": item for k, item in enumerate(value)} if isinstance(value, list) else {key: value}
            tensors |= {f"optimizer.{index}.{name}": item for name, item in named.items() if isinstance(item, Tensor)}
    return tensors, {"state": rest, "param_groups": state["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Load what `pack_optimizer` gave into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {int(index): values for index, values in deepcopy(record["state"]).items()}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, key, *place = rest.split(".")
            if place:
                state[int(index)][key][int(*place)] = tensor
            else:
                state[int(index)][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": record["param_groups"]})


def _plain(value: Any) -> Any:
    return [None if isinstance(item, Tensor) else item for item in value] if isinstance(value, list) else value


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
