"""Training on many machines: the ranks of an MPI program, each of which trains on some lanes.

Every rank takes its share of each batch, and one all-reduce of the gradient per step gives all the
same update. With ``sync_every`` each rank makes some updates of its own, then the weights are
averaged (local SGD: McMahan et al., 2017; Stich, 2019). Rank 0 alone reads the text, evaluates,
samples, saves and prints. MPI (mpi4py) is imported only if a launcher, such as mpiexec, has started
this process as one of several.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from charrnn.errors import CharrnnError, ClusterError, UsageError

T = TypeVar("T")

# of the launchers of MPICH, of Open MPI, and of others by PMIx, as srun --mpi=pmix
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
NUM_EXTRA = 4  # numbers that are summed with the gradient: the loss in two parts, and two requests
POLL_SECONDS = 0.005  # between two looks at whether rank 0 is done
FORWARD_SECONDS = 0.2  # in which the launcher reads what a rank has printed last
GRACE_SECONDS = 2.0  # in which rank 0 may report an error before another rank does
SLOW_SHARE = 0.2  # of the time, for communication
SLOW_STEPS = 20  # over which it is measured


class Cluster:
    """One process without others: rank 0 of 1. The base of ``MPICluster``."""

    rank, size = 0, 1
    local_size = 1  # ranks on this machine
    sync_every = 1  # steps of each rank on its own, until the weights are averaged
    in_sync = True  # whether all ranks have the same weights

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def lanes(self, B: int) -> slice:
        """Return the lanes of this rank in a batch of B. Raises UsageError if there are too few."""
        if self.size > B:
            raise UsageError(
                f"the batch has {B} sequences, too few for {self.size} ranks; use a larger "
                f"--batch-size, or fewer ranks"
            )
        return slice(B * self.rank // self.size, B * (self.rank + 1) // self.size)

    def from_root(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; return its result, or raise its error, on every rank."""
        return function()

    def on_others(self, function: Callable[[], object]) -> None:
        """Call a function on the ranks other than 0; raise the first error on every rank."""

    def agree(self, request: str, wanted: bool) -> bool:
        """Return whether ``"save"`` or ``"stop"`` is wanted, by this rank or another.

        Never while the weights of the ranks differ.
        """
        return wanted

    def sum_gradient(self, gradient: Any, loss: float) -> float:
        """Sum a gradient (n + NUM_EXTRA,) over the ranks, in place; return the summed loss.

        With local steps, take what this rank has for the mean of all.
        """
        return loss

    def average(self, vectors: Sequence[Any], loss: float, is_due: bool) -> list[float]:
        """After local steps, average vectors over the ranks, if that is due.

        Returns the mean loss of each step whose losses all ranks know by now.
        """
        return [loss]

    def gather_lanes(self, state: Any) -> Any:
        """Return the state of the lanes of all ranks on rank 0, (L, S, H, B)."""
        return state

    def check_same(self, checksum: int) -> None:
        """Raise ClusterError if the ranks have different checksums."""

    def slow_message(self) -> str:
        """Return advice, once, if communication takes much of the time; otherwise ""."""
        return ""


SINGLE = Cluster()


class MPICluster(Cluster):
    """The ranks of an MPI program."""

    def __init__(self, mpi: Any) -> None:
        self.mpi, self.comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.local_size = self.comm.Split_type(mpi.COMM_TYPE_SHARED).size
        self._wanted = {"save": False, "stop": False}
        self._agreed = dict(self._wanted)
        self._times: list[tuple[float, float]] = []  # of each sum: its start and its end
        self._is_measured = False
        self._losses: list[float] = []  # of this rank's steps since the last average

    def from_root(self, function: Callable[[], T]) -> T:
        import numpy as np

        value: Any = None
        error: Any = None
        data, size = bytearray(), np.zeros(1, np.int64)
        if self.is_root:
            try:
                value = function()
            except Exception as e:  # for the others too
                error = e
            data = bytearray(pickle.dumps((value, error)))
            size[0] = len(data)
        request = self.comm.Ibcast(size)  # the others wait without using a core
        while not request.Test():
            time.sleep(POLL_SECONDS)
        data = data or bytearray(int(size[0]))
        view = memoryview(data)
        for start in range(0, len(data), 2**30):
            self.comm.Bcast(view[start : start + 2**30])
        if not self.is_root:  # whose value may have more than its copy: an open file
            value, error = pickle.loads(data)  # from this program
        if error is not None:
            with contextlib.suppress(AttributeError):
                error.is_shared = True
            raise error
        result: T = value
        return result

    def on_others(self, function: Callable[[], object]) -> None:
        error = None
        if not self.is_root:
            try:
                function()
            except (CharrnnError, OSError) as e:
                error = f"rank {self.rank}: {e}; without a shared folder, use --local-ids"
        for message in self.comm.allgather(error):
            if message:
                raise self._shared(UsageError(message))

    def agree(self, request: str, wanted: bool) -> bool:
        """Return what is agreed: a request goes round with the next sum."""
        self._wanted[request] = wanted and not self._agreed[request]
        return self._agreed[request]

    def sum_gradient(self, gradient: Any, loss: float) -> float:
        if self.sync_every > 1:
            gradient *= self.size
            return loss * self.size
        high = gradient.dtype.type(loss)  # float32: the rest of the loss comes with it
        gradient[-4:] = high, loss - float(high), self._wanted["save"], self._wanted["stop"]
        self._sum(gradient)
        high, low, save, stop = gradient[-4:].tolist()
        self._agreed = {"save": save != 0, "stop": stop != 0}
        return float(high) + float(low)

    def average(self, vectors: Sequence[Any], loss: float, is_due: bool) -> list[float]:
        import numpy as np

        if self.sync_every == 1:
            return [loss]
        self._losses.append(loss)
        self.in_sync = is_due
        if not is_due:
            self._agreed = {"save": False, "stop": False}
            return []
        for vector in vectors:
            self._sum(vector)
            vector /= self.size
        numbers = np.array([self._wanted["save"], self._wanted["stop"], *self._losses])
        self._sum(numbers)
        self._losses = []
        save, stop, *losses = numbers.tolist()
        self._agreed = {"save": save != 0, "stop": stop != 0}
        return [loss / self.size for loss in losses]

    def _sum(self, a: Any) -> None:
        """Replace an array by its sum over the ranks."""
        start = time.perf_counter()
        self.comm.Allreduce(self.mpi.IN_PLACE, a)
        if not self._is_measured:
            self._times.append((start, time.perf_counter()))

    def gather_lanes(self, state: Any) -> Any:
        import numpy as np

        parts = self.comm.gather(state)
        return np.concatenate(parts, axis=-1) if self.is_root else state

    def check_same(self, checksum: int) -> None:
        checksums = self.comm.allgather(checksum)
        for rank, other in enumerate(checksums):
            if other != checksums[0]:
                raise self._shared(
                    ClusterError(
                        f"the weights of rank {rank} differ from those of rank 0; are all machines "
                        f"of the same kind, with the same NumPy? The last save is unchanged"
                    )
                )

    @staticmethod
    def _shared(error: CharrnnError) -> CharrnnError:
        error.is_shared = True
        return error

    def slow_message(self) -> str:
        if len(self._times) < SLOW_STEPS or self._is_measured:
            return ""
        self._is_measured = True
        total = self._times[-1][1] - self._times[0][0]
        waited = sum(end - start for start, end in self._times[1:])
        share = self.comm.allreduce(waited / total, self.mpi.MIN)  # the slowest rank never waits
        if share < SLOW_SHARE:
            return ""
        return (
            f"communication between the ranks takes {share:.0%} of the time; a larger "
            f"--batch-size, a smaller model or --sync-every makes it less"
        )


def launcher_rank() -> int:
    """Return the rank that a launcher has given to this process, or 0."""
    return max(int(os.environ.get(name, "0") or 0) for name in RANK_VARIABLES)


def abort(code: int, message: str = "") -> None:
    """Print a message and end all ranks, if this process is one of several."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.size > 1:
        print(message, end="", file=sys.stderr, flush=True)
        time.sleep(FORWARD_SECONDS)
        try:
            mpi.COMM_WORLD.Abort(code)
        finally:  # it may fail, if another rank has ended
            os._exit(code)


def connect() -> Cluster:
    """Return the cluster that this process belongs to.

    Raises UsageError if a launcher has started several processes, but MPI cannot be imported, or
    does not know of the others.
    """
    sizes = [int(os.environ.get(name, "0") or 0) for name in SIZE_VARIABLES]
    if max(sizes) <= 1 and "PMIX_RANK" not in os.environ:
        return SINGLE
    try:
        import mpi4py

        mpi4py.rc.thread_level = "funneled"
        with warnings.catch_warnings():  # on another launcher, which is an error here
            warnings.simplefilter("ignore")
            from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UsageError(
            f"started by mpiexec as one of {max(sizes)} processes, but MPI cannot be loaded "
            f"({reason}); install it with: pip install 'charrnn[mpi]'"
        ) from None
    size = MPI.COMM_WORLD.size
    if size < max(sizes):
        raise UsageError(
            f"the launcher started {max(sizes)} processes, but each is alone to the MPI library "
            f"({MPI.Get_library_version().splitlines()[0].strip()}): use the mpiexec of that "
            f"library; after pip install 'charrnn[mpi]' it is in the folder of charrnn"
        )
    return MPICluster(MPI) if size > 1 else SINGLE
