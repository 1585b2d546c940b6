"""Ways to run an ensemble's networks in PyTorch, and the choice of one for each device.

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
    """One way to run networks. All ways give the same results, apart from rounding.

    Attributes:
        graphs: Record a pass as a CUDA graph and replay it, instead of starting each kernel anew.
        cudnn_benchmark: Let cuDNN try its algorithms on every new shape.
        tf32: Let convolutions in fp32 round their factors to TF32's 11 bits.
        fused: Let a convolution's kernel add its bias and apply its ReLU.
    """

    graphs: bool = False
    cudnn_benchmark: bool = False
    tf32: bool = False
    fused: bool = False


EAGER = Way()
# Each row has a device, the least compute capability, the least number of nodules, and a way. The last row that fits
# holds. The number counts the nodules scored since loading and those of this call, because a way that starts slowly
# pays only over many nodules.
TABLE = (
    ("cpu", (0, 0), 0, EAGER),
    ("cuda", (0, 0), 0, EAGER),
)


def choose_way(device: str, capability: tuple[int, int], nodules: int) -> Way:
    """Return the table's way for a device and a number of nodules since loading."""
    fitting = [way for name, since, least, way in TABLE if name == device and capability >= since and nodules >= least]
    return fitting[-1]


class CudaGraphs:
    """Passes over batches, each recorded once per task and shape. Every recording keeps its memory until ``clear``."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, tuple[Tensor, Callable[[], None], Tensor] | None] = {}

    def run(self, task: Hashable, run: Pass, batch: Tensor) -> Tensor:
        """Return the result of ``run`` for a batch. The next run of the same task and shape overwrites it."""
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
        """Return the recordings' memory to PyTorch."""
        self._graphs.clear()


def _record(run: Pass, batch: Tensor) -> tuple[Tensor, Callable[[], None], Tensor] | None:
    """Return input, replay and output of a recorded pass. None if it cannot be recorded.

    Raises:
        torch.OutOfMemoryError: the pass itself does not fit the memory.
    """
    inputs, graph, stream = batch.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # If recording fails, torch.cuda.graph does not restore the previous stream; this does.
    with torch.cuda.stream(stream):
        run(inputs)  # the first pass allocates memory and chooses algorithms, which is not allowed while recording
        try:
            with torch.cuda.graph(graph, stream=stream):
                outputs = run(inputs)
        except RuntimeError as error:
            # The cause may be a lack of memory, which ends recording with one of several errors.
            logger.info("running without CUDA graphs: %s", error)
            return None
    torch.cuda.current_stream().wait_stream(stream)
    return inputs, graph.replay, outputs
