"""The training of one machine by processes on several nodes, through Ray Train.

```
nodes ─▶ train_network in each, a team (training/team.py) ─▶ the first one's checkpoint, on shared storage
here  ─▶ train_network from that checkpoint, which has nothing left to train ─▶ calibrated, exported as ever
```
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from accmpeg.cluster.connect import TRIES, worker_nodes
from accmpeg.errors import AccmpegError, ClusterError, MissingExtraError, one_line
from accmpeg.training.fitting import Progress, Trained, train_network
from accmpeg.training.labels import LabelSet
from accmpeg.training.settings import TrainingSettings

__all__ = ["train_together"]

_POLL_S = 0.5


def train_together(
    label_sets: Sequence[LabelSet],
    checkpoint: Path,
    settings: TrainingSettings,
    *,
    exclude_clips: frozenset[str] = frozenset(),
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """What `train_network` does, by a process on each node (or each GPU).

    Where a worker dies those that are left begin again from the checkpoint, a few times. Raises what
    `train_network` raises, and ClusterError.
    """
    train = _ray_train()
    checkpoint = checkpoint.absolute()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    # Ray Train wants a place of its own that all nodes share; nothing in it is needed later.
    scratch = checkpoint.with_suffix(".ray")
    trainer = train.torch.TorchTrainer(
        partial(_train_here, list(label_sets), checkpoint, settings, exclude_clips, told),
        scaling_config=_scaling(train, settings),
        run_config=train.RunConfig(
            name="train",
            storage_path=str(scratch),
            failure_config=train.FailureConfig(max_failures=TRIES - 1),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )
    # In a thread of its own, because in the main one it would turn Ctrl-C into a success.
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(trainer.fit)
        try:
            while not running.done():
                with suppress(Empty):
                    progress(told.get(timeout=_POLL_S))
            failed = running.result().return_value
        except train.TrainingFailedError as error:
            raise ClusterError(
                f"training was given up after {TRIES} tries ({one_line(error)}); {checkpoint} keeps what was "
                "done: the same command goes on from there"
            ) from error
        finally:
            if not running.done():
                ray.shutdown()  # ends the thread's call too
            shutil.rmtree(scratch, ignore_errors=True)
    if failed is not None:
        raise failed
    return train_network(label_sets, checkpoint, settings, exclude_clips=exclude_clips)


def _train_here(
    label_sets: Sequence[LabelSet],
    checkpoint: Path,
    settings: TrainingSettings,
    exclude_clips: frozenset[str],
    told: Queue,
) -> AccmpegError | None:
    """The part of one process. What no new try can mend comes back in place of being raised."""
    leads = _ray_train().get_context().get_world_rank() == 0
    try:
        train_network(
            label_sets,
            checkpoint,
            settings,
            exclude_clips=exclude_clips,
            progress=told.put if leads else lambda _: None,
        )
    except AccmpegError as error:
        return error
    return None


def _ray_train() -> Any:
    """Ray Train, whose types are those of an older interface; it has dependencies that Ray alone has not."""
    try:
        import ray.train.torch
    except ImportError as error:
        raise MissingExtraError("accmpeg cluster train", "cluster") from error
    return ray.train


def _scaling(train: Any, settings: TrainingSettings) -> Any:
    """A process on each node with its CPUs, or one on each GPU; no more than there are views in a batch.

    Fewer where nodes are lost: the steps are the same.
    """
    nodes = worker_nodes()
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
    if settings.device.startswith("cuda") or (settings.device == "auto" and gpus):
        return train.ScalingConfig(num_workers=(1, min(gpus, settings.batch_size)), use_gpu=True)
    cpus = min(node["Resources"]["CPU"] for node in nodes)
    return train.ScalingConfig(
        num_workers=(1, min(len(nodes), settings.batch_size)),
        resources_per_worker={"CPU": cpus},
        placement_strategy="SPREAD",
    )
