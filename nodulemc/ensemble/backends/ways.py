"""Ways to run an ensemble's networks in PyTorch, and which one is taken on which device.

``benchmarks/gpu.py`` measures them on a device and prints the row to add to ``TABLE``.
"""

import logging
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
Pass = Callable[[Tensor], Tensor]


class Way(NamedTuple):
    """One way, the same results but for rounding.

    Attributes:
        graphs: record a pass as a CUDA graph and replay it, instead of starting each kernel anew.
        cudnn_benchmark: let cuDNN try its algorithms on every new shape.
        tf32: let convolutions in fp32 round what they multiply to TF32's 11 bits.
        fused: let a convolution's kernel add its bias and apply its ReLU.
    """

    graphs: bool = False
    cudnn_benchmark: bool = False
    tf32: bool = False
    fused: bool = False


EAGER = Way()
# Device, compute capability from, nodules from, way; the last row that fits holds. The nodules are those that were
# scored since loading, with those asked for now: a way that starts slowly pays only over many.
TABLE = (
    ("cpu", (0, 0), 0, EAGER),
    ("cuda", (0, 0), 0, EAGER),
)


def choose_way(device: str, capability: tuple[int, int], nodules: int) -> Way:
    """The table's way for a device and a number of nodules since loading."""
    fitting = [way for name, since, least, way in TABLE if name == device and capability >= since and nodules >= least]
    return fitting[-1]


class CudaGraphs:
    """Passes over batches, each recorded once per task and shape. Every recording holds its memory until ``clear``."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, tuple[Tensor, Callable[[], None], Tensor] | None] = {}

    def run(self, task: Hashable, run: Pass, batch: Tensor) -> Tensor:
        """What ``run`` makes of a batch; overwritten by the next run of the same task and shape."""
        key = task, batch.shape
        if key not in self._graphs:
            self._graphs[key] = _record(run, batch)
        graph = self._graphs[key]
        if graph is None:
            return run(batch)
        inputs, replay, outputs = graph
        inputs.copy_(batch)
        replay()
        return outputs

    def clear(self) -> None:
        """Give the recordings' memory back to PyTorch."""
        self._graphs.clear()


def _record(run: Pass, batch: Tensor) -> tuple[Tensor, Callable[[], None], Tensor] | None:
    """Input, replay and output of a recorded pass; None where it cannot be recorded.

    Raises:
        torch.OutOfMemoryError: the pass itself does not fit the memory.
    """
    inputs, graph, stream = batch.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Where recording fails, torch.cuda.graph does not go back to the stream before; this does.
    with torch.cuda.stream(stream):
        run(inputs)  # the first pass allocates and chooses algorithms, which is not allowed while recording
        try:
            with torch.cuda.graph(graph, stream=stream):
                outputs = run(inputs)
        except RuntimeError as error:
            # A lack of memory among others, which ends recording with one of several errors.
            logger.info("running without CUDA graphs: %s", error)
            return None
    torch.cuda.current_stream().wait_stream(stream)
    return inputs, graph.replay, outputs
