"""Several processes, one run: what they agree on, and how gradients are added up.

``torchrun`` starts them; each holds the whole network and takes its share of every step's images. Gradients are added
up by torch's DistributedDataParallel, which sends them while the backward pass still computes. The `Criterion`, whose
`forward` makes the losses, is the module that it wraps. Everything else that processes tell one another is small and
goes through `World`: over gloo, except for what lies on a GPU (`average`).

Only the first process writes files and speaks. What depends on time, files or luck (a stop, a budget's plan, an image
that cannot be read) is agreed on, so that all processes take the same turns.
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

from maskrcnn.checkpoints.native import pick_device
from maskrcnn.errors import UserError

T = TypeVar("T")

THIS_PROCESS = uuid.uuid4().hex

ANSWER = timedelta(seconds=1)
"""How long a process waits for a word of the first, before it looks whether there is another first."""
PAUSE = 0.05
PATIENCE = 600.0
"""Seconds until it gives up: the others' imports from a slow disk take part of it."""


@dataclass(frozen=True)
class World:
    """The processes of a run, of which this is number `rank`. All of them must call a method for any to return.

    `group` is for what lies on the CPU, where the default group cannot take it. `memory` is the launcher's store, which
    outlives the processes that it starts.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    memory: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def remember(self, fact: str) -> None:
        """Keep `fact` for processes that the same launcher starts after this one, which may call this alone."""
        if self.memory is not None:
            self.memory.set(fact, THIS_PROCESS)

    def remembers(self, fact: str) -> bool:
        """Whether a process of the same launcher has been told to `remember` `fact` before this one; alone, too."""
        known = self.memory is not None and self.memory.check([fact])
        return known and self.memory.get(fact).decode() != THIS_PROCESS  # type: ignore[union-attr]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        values = values.cpu()
        if self.size > 1:
            distributed.all_reduce(values, group=self.group)
        return values

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum(torch.tensor(float(here))))

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process; where it raises `UserError` there, all do."""
        if self.size == 1:
            return make()
        box: list[Any] = [None]
        if self.first:
            try:
                box = [make()]
            except UserError as error:
                box = [error]
        distributed.broadcast_object_list(box, group=self.group)
        if isinstance(box[0], UserError):
            raise box[0]
        return box[0]

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, whose gradients are from now on the means over all processes; weights become the first's.

        A step in which no image has a mask leaves the mask head without gradients, so what is unused is looked for.
        """
        if self.size == 1:
            return module
        wrapped = DistributedDataParallel(module, find_unused_parameters=True)
        # Buffers are averaged where they matter (`average`); the argument that says so has another name in newer torch.
        wrapped.broadcast_buffers = False
        return wrapped

    def apart(self, module: nn.Module) -> AbstractContextManager[None]:
        """Gradients of a backward pass in this context stay here, until those of one outside are added up."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            distributed.all_reduce(flat)
            parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started or that the caller has already joined; else this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
    memory: Any = None
    if "TORCHELASTIC_RUN_ID" in os.environ or (size > 1 and not distributed.is_initialized()):
        memory, rank, size = next(rendezvous("env://"))
    if distributed.is_initialized():
        serves_cpu = "gloo" in str(distributed.get_backend_config())
        group: Any = None if serves_cpu else distributed.new_group(backend="gloo")
        yield World(distributed.get_rank(), distributed.get_world_size(), group, memory)
    elif size > 1:
        numba.set_num_threads(min(torch.get_num_threads(), numba.get_num_threads()))  # torchrun tells torch alone
        # The launcher's store outlives a restart: without a name of its own, a start could find what was killed.
        store = PrefixStore(name_of_start(memory, rank, size), memory)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            yield World(rank, size, memory=memory)
        finally:
            distributed.destroy_process_group()
    else:
        yield World(memory=memory)


def name_of_start(store: Store, rank: int, size: int) -> str:
    """A name that the `size` processes started together agree on, and none of an earlier start has.

    The first makes it up. The others may read that of a first that is gone: only a living one answers their greeting.
    (torchrun's count of restarts will not do: each node counts its own.) Raises `TimeoutError` when none is heard of.
    """
    if rank == 0:
        name = uuid.uuid4().hex
        store.set("start", name)
        for other in range(1, size):
            store.set(f"{name} answer {other}", store.get(f"{name} greeting {other}").decode())
        return name
    greeting = uuid.uuid4().hex
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(DistStoreError):
            store.wait(["start"], ANSWER)
            name = store.get("start").decode()
            store.set(f"{name} greeting {rank}", greeting)
            store.wait([f"{name} answer {rank}"], ANSWER)
            if store.get(f"{name} answer {rank}").decode() == greeting:
                return name
        time.sleep(PAUSE)
    raise TimeoutError(f"process {rank} of {size} has not heard of the first")


def pick_own_device(name: str) -> torch.device:
    """`pick_device`, where "auto" and "cuda" stand for the GPU of this process's number on its machine."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = pick_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
