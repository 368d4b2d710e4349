"""SafeSparse on m sparse uploads, beside one dense float32 Gram product of the same shape.

The product is torch's own on an (m, d) matrix that is already there. SafeSparse starts from uploads as
they arrive (mask and kept values) and ends with the aggregate: both filters, the guard and the mean. Memory
is what it needs besides the uploads, at its peak.

    python benchmarks/sparse.py [--clients 100] [--d 1000000] [--ratio 0.5] [--repeat 5]
"""

import argparse
import threading
import time

import numpy as np
import psutil
import torch

from byzflower.strategies import PackedRows, safe_sparse
from byzflower.uploads import Layout, Packs, TopK
from byzflower.uploads.topk import sparsify


def uploads(clients: int, d: int, ratio: float):
    """Sparse models of clients whose updates have something in common, and the global model."""
    rng = np.random.default_rng(0)
    layout = Layout.of_list([np.zeros(d, np.float32)])
    sent = rng.normal(size=d).astype(np.float32)
    common = 0.3 * rng.normal(size=d).astype(np.float32)
    models = []
    for _ in range(clients):
        trained = sent + common + rng.standard_normal(d, np.float32)
        models.append(sparsify(trained, sent, layout, TopK(ratio)))
    return models, sent


class PeakMemory:
    """The most that the process's memory grew while it was watched, in bytes."""

    def __enter__(self):
        self._process, self._stop = psutil.Process(), threading.Event()
        self._before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self.grown = self.peak - self._before


def seconds(work) -> tuple[float, float]:
    """Wall-clock and CPU time: the latter is what a machine that others use, too, can tell."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--d", type=int, default=1_000_000)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    models, sent = uploads(options.clients, options.d, options.ratio)
    packs = Packs(options.d)
    masks = np.stack([model.mask for model in models])
    values = [model.values for model in models]
    size = sum(v.nbytes for v in values) + packs.mask_bytes * len(models)

    def robust():
        return safe_sparse(PackedRows(packs, masks, values, sent), magnitude_guard=2.0)

    with PeakMemory() as memory:
        robust()
    dense = torch.randn(options.clients, options.d)
    dense @ dense.T
    # Turn by turn, so that a busy machine slows both.
    times = [(seconds(lambda: dense @ dense.T), seconds(robust)) for _ in range(options.repeat)]
    print(f"{options.clients} clients, d = {options.d}, packs of {packs.size}, ratio {options.ratio}")
    for i, kind in enumerate(("wall", "CPU")):
        product, whole = min(own[0][i] for own in times), min(own[1][i] for own in times)
        print(f"{kind}: product {product:.3f} s, SafeSparse {whole:.3f} s, {whole / product:.2f} times")
    extra = memory.grown
    print(f"uploads {size / 1e6:.0f} MB, extra memory {extra / 1e6:.0f} MB: {extra / size:.2f} times")


if __name__ == "__main__":
    main()
