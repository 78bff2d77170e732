"""Training state on disk: one safetensors file, replaced in one step; nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from accmpeg.errors import TrainingError
from accmpeg.files import write_whole

__all__ = [
    "load_checkpoint",
    "load_weights",
    "optimizer_tensors",
    "restore_optimizer",
    "save_checkpoint",
    "save_weights",
]


def save_checkpoint(path: Path, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Writes groups of tensors and a JSON-able state; raises `OSError` (full disk), leaving the old file."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    write_whole(path, safetensors.torch.save(flat, metadata={"state": json.dumps(state)}))


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The groups and the state, None where there is no file; raises `TrainingError` for a damaged one."""
    if not path.exists():
        return None
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            for key in file.keys():  # noqa: SIM118 (not a dict)
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except Exception as error:
        raise TrainingError(
            f"the checkpoint {path} is damaged ({error}): start again with --restart"
        ) from error
    return groups, state


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's running averages by parameter name."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Undoes `optimizer_tensors`."""
    for name, parameter in network.named_parameters():
        prefix = f"{name}/"
        optimizer.state[parameter] = {
            # Adam keeps its step count on the CPU whatever the device.
            key.removeprefix(prefix): value if key.endswith("/step") else value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }


def save_weights(path: Path, network: nn.Module) -> None:
    """A trained network's weights, for another training to start from; raises `OSError` (full disk)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_whole(path, safetensors.torch.save(tensors))


def load_weights(network: nn.Module, path: Path) -> None:
    """Starts a network from what `save_weights` wrote; an output it lacks keeps its first weights.

    Raises `TrainingError` for a missing or damaged file and for another architecture.
    """
    try:
        kept = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"can't start from {path}: {error}; give the NAME.safetensors of an AccModel"
        ) from error
    own = network.state_dict()
    fits = {name: tensor for name, tensor in kept.items() if name in own and own[name].shape == tensor.shape}
    # Only the last layers' sizes depend on the server DNN.
    if any(not name.startswith(("head.", "context.")) for name in set(own) - set(fits)):
        raise TrainingError(f"can't start from {path}: it holds the weights of another architecture")
    network.load_state_dict(fits, strict=False)
