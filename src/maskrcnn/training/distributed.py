"""Train one network in several processes, on one machine or many.

torchrun starts the processes. Each holds the full network and trains on its share of every step's images.
DistributedDataParallel wraps the `Criterion` and averages the gradients. All other communication is small and goes
through `World`, over gloo; tensors on a GPU (`average`) go over NCCL. Only the first process writes files and prints.
All agree on what depends on time, files or chance (a stop, a budget's plan, an unreadable image), and so take the same
branches.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numba
import torch
from torch import Tensor, distributed, nn
from torch.distributed import DistStoreError, PrefixStore, ProcessGroup, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from maskrcnn.errors import UserError
from maskrcnn.inference.runtimes.torch import pick_device

T = TypeVar("T")

THIS_PROCESS = uuid.uuid4().hex

ANSWER_TIMEOUT = timedelta(seconds=1)
"""How long a process waits for the first process, before it checks whether another one has taken its place."""
RETRY_SECONDS = 0.05
GIVE_UP_SECONDS = 600.0
"""Seconds until a process gives up; the others may still be importing from a slow disk."""


@dataclass(frozen=True)
class World:
    """The `size` processes of a run; this is number `rank`. Unless noted, methods are collective: all must call them.

    `group` carries CPU tensors if the default group cannot. `launcher_store` outlives the processes of its launcher.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    launcher_store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def remember(self, fact: str) -> None:
        """Store `fact` for processes that the same launcher starts later. Not collective."""
        if self.launcher_store is not None:
            self.launcher_store.set(fact, THIS_PROCESS)

    def remembers(self, fact: str) -> bool:
        """Return whether an earlier process of the same launcher stored `fact`. Not collective."""
        known = self.launcher_store is not None and self.launcher_store.check([fact])
        return known and self.launcher_store.get(fact).decode() != THIS_PROCESS  # type: ignore[union-attr]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, on the CPU."""
        values = values.cpu()
        if self.size > 1:
            distributed.all_reduce(values, group=self.group)
        return values

    def any(self, here: bool) -> bool:
        """Return whether `here` is true in any process."""
        return bool(self.sum(torch.tensor(float(here))))

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process and return its result in all; if it raises `UserError`, all raise it."""
        if self.size == 1:
            return make()
        shared: list[Any] = [None]
        if self.first:
            try:
                shared = [make()]
            except UserError as error:
                shared = [error]
        distributed.broadcast_object_list(shared, group=self.group)
        if isinstance(shared[0], UserError):
            raise shared[0]
        return shared[0]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return `module` with gradients averaged over all processes and the weights of the first process."""
        if self.size == 1:
            return module
        wrapped = DistributedDataParallel(module, find_unused_parameters=True)  # a step may lack masks
        # `average` synchronises the buffers that matter. Set after construction: newer torch renamed the argument.
        wrapped.broadcast_buffers = False
        return wrapped

    def apart(self, module: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which backward passes only accumulate gradients; the next pass outside averages them."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor with its mean over all processes."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            distributed.all_reduce(flat)
            parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


@contextmanager
def joined() -> Iterator[World]:
    """Yield the processes of torchrun or of the caller's initialised process group, otherwise this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
    launcher_store: Any = None
    if "TORCHELASTIC_RUN_ID" in os.environ or (size > 1 and not distributed.is_initialized()):
        launcher_store, rank, size = next(rendezvous("env://"))
    if distributed.is_initialized():
        serves_cpu = "gloo" in str(distributed.get_backend_config())
        group: Any = None if serves_cpu else distributed.new_group(backend="gloo")
        yield World(distributed.get_rank(), distributed.get_world_size(), group, launcher_store)
    elif size > 1:
        numba.set_num_threads(min(torch.get_num_threads(), numba.get_num_threads()))  # torchrun limits only torch
        # The launcher's store outlives a restart: without a prefix of its own, a start could read keys of a killed one.
        store = PrefixStore(agree_on_start_id(launcher_store, rank, size), launcher_store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            yield World(rank, size, launcher_store=launcher_store)
        finally:
            distributed.destroy_process_group()
    else:
        yield World(launcher_store=launcher_store)


def agree_on_start_id(store: Store, rank: int, size: int) -> str:
    """Return an id that the `size` processes of this start share and no earlier start used.

    The first process draws it. The others may read the id of a first process that has died, so each sends a greeting
    that only a live one answers. (torchrun's restart count does not serve: each node keeps its own.) Raise
    `TimeoutError` if no first process answers.
    """
    if rank == 0:
        start_id = uuid.uuid4().hex
        store.set("start", start_id)
        for peer in range(1, size):
            store.set(f"{start_id} answer {peer}", store.get(f"{start_id} greeting {peer}").decode())
        return start_id
    greeting = uuid.uuid4().hex
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        with suppress(DistStoreError):
            store.wait(["start"], ANSWER_TIMEOUT)
            start_id = store.get("start").decode()
            store.set(f"{start_id} greeting {rank}", greeting)
            store.wait([f"{start_id} answer {rank}"], ANSWER_TIMEOUT)
            if store.get(f"{start_id} answer {rank}").decode() == greeting:
                return start_id
        time.sleep(RETRY_SECONDS)
    raise TimeoutError(f"process {rank} of {size} got no answer from the first process in {GIVE_UP_SECONDS:.0f} s")


def pick_own_device(name: str) -> torch.device:
    """Pick the device as `pick_device` does; "auto" and "cuda" mean the GPU with this process's local rank."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = pick_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
