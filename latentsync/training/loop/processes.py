"""The processes of a run: one, or several that train one network together."""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentsync.errors import ConfigError, DependencyError, LatentSyncError, TrainingError
from latentsync.runtime.advice import install_command
from latentsync.training.loop.options import MixedPrecision
from latentsync.training.loop.task import Shard

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Long enough for a validation or a save that the other processes wait for.
_PATIENCE = timedelta(hours=6)


def current_shard() -> Shard:
    """This process's part of the data, by the variables that torchrun and ``accelerate launch`` set."""
    return Shard(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def shutdown_distributed() -> None:
    """Leave the process group in good order: the last thing that a program does which may run in several processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def resolve_precision(wanted: MixedPrecision, cuda: bool) -> str:
    """What "auto" means on this machine.

    Returns:
        "no", "bf16" or "fp16".

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if wanted == "auto":
        if not cuda:
            return "no"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "fp16" and not cuda:
        raise ConfigError("run.mixed_precision is 'fp16', which needs a GPU. Use 'auto', 'no' or 'bf16' on a CPU.")
    return wanted


class ProcessGroup:
    """Joins the processes that the launcher started.

    Small values go over gloo in main memory, so that they never wait for a GPU.

    Args:
        mixed_precision: see `resolve_precision`.
        cpu: do not use a GPU that is there.
        find_unused: parameters that need a gradient may get none in a step.

    Attributes:
        shard: rank and number of processes.
        device: of this process.
        precision: "no", "bf16" or "fp16".
    """

    def __init__(self, mixed_precision: MixedPrecision = "no", cpu: bool = False, find_unused: bool = False) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
            from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
        except ImportError as error:
            raise DependencyError(f"Training needs accelerate. Install it with: {install_command('train')}") from error
        if current_shard().world_size == 1:
            # Else accelerate stays with the device and the precision of an earlier run of this program.
            AcceleratorState._reset_state(reset_partial_state=True)
        cuda = torch.cuda.is_available() and not cpu
        self.precision = resolve_precision(mixed_precision, cuda)
        self.accelerator = Accelerator(
            mixed_precision=self.precision,
            cpu=not cuda,
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                DistributedDataParallelKwargs(find_unused_parameters=find_unused, gradient_as_bucket_view=True),
            ],
        )
        self.device: torch.device = self.accelerator.device
        self.shard = Shard(self.accelerator.process_index, self.accelerator.num_processes)
        several = self.shard.world_size > 1
        self._group = dist.new_group(backend="gloo", timeout=_PATIENCE) if several else None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.shard.rank == 0

    def all_reduce_max(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all processes."""
        if self._group is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return tensor.tolist()

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.shard.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor on their devices, of any shape."""
        if self._group is not None:
            dist.all_reduce(values)
            values /= self.shard.world_size
        return values

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Have the main process do something that the others wait for; all get its result, or its failure.

        Raises:
            TrainingError: in the others, when the work failed for a reason that is no `LatentSyncError`.
        """
        if self._group is None:
            return work()
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer = [work(), None]
            except LatentSyncError as error:
                answer = [None, error]
            except BaseException as error:
                dist.broadcast_object_list(
                    [None, TrainingError(f"The main process failed: {error}")], group=self._group
                )
                raise
        dist.broadcast_object_list(answer, group=self._group)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network on this process's device, in its precision, and tied to the others' by its gradients."""
        return self.accelerator.prepare_model(network)

    def close(self, network: nn.Module) -> None:
        """Take what was put around the network off it; the process group stays, see `shutdown_distributed`."""
        from accelerate.state import AcceleratorState

        self.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        # Otherwise the next training in this process could not choose another precision.
        AcceleratorState._reset_state()
        if self._group is not None:
            dist.destroy_process_group(self._group)
