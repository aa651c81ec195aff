"""What a call costs before the device begins: a method's own call against its program under plain ``jax.jit``.

For each method: milliseconds until the call returns (it waits for nothing), for a wrapped NNX network and for the raw
module; of the same program compiled by hand, given its leaves; the ratio; and the seconds of the first call.

    python benchmarks/dispatch.py --network resnet50 --methods gradient grad_cam
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxsal as js

# Settings that make the programs small: what is measured is what happens before they run.
SMALL: dict[str, dict[str, Any]] = {
    "rise": {"num_masks": 2},
    "lime": {"num_samples": 2},
    "kernel_shap": {"num_samples": 2},
    "shapley": {"num_permutations": 2},
    "meaningful_perturbation": {"num_steps": 1},
    "extremal_perturbation": {"num_steps": 1},
    "ablation_path": {"num_masks": 2, "num_iterations": 1, "baseline": 0.0},
    "occlusion": {"window": 16, "stride": 16},
    "integrated_gradients": {"num_steps": 2},
    "blur_integrated_gradients": {"num_steps": 2},
    "smooth_gradient": {"num_samples": 2},
    "var_gradient": {"num_samples": 2},
}


def sending(call: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds until ``call`` returns; the device has nothing else to do."""
    jax.block_until_ready(call())
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        out = call()
        took.append(time.perf_counter() - start)
        jax.block_until_ready(out)
    return 1e3 * statistics.median(took)


def by_hand(method: Callable, f: Any, x: Any) -> Callable[[], Any]:
    """The same program under plain ``jax.jit``, with the leaves in hand."""
    leaves, tree = jax.tree.flatten(f)
    program = jax.jit(lambda leaves, x, c: method(jax.tree.unflatten(tree, leaves), x, c))
    number = np.int32(1)
    return lambda: program(leaves, x, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--methods", nargs="*", default=list(js.METHODS))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    raw = js.models.create(args.network, num_classes=10, rngs=nnx.Rngs(0))
    wrapped = js.classifiers.wrap(raw, labels=tuple(map(str, range(10))))
    x = jax.random.uniform(jax.random.key(0), (1, args.size, args.size, 3))
    print(f"{args.network}, {len(jax.tree.leaves(wrapped))} leaves, {jax.devices()[0].device_kind}")
    print(f"{'method':26} {'by hand':>8} {'wrapped':>8} {'ratio':>6} {'raw':>8} {'ratio':>6} {'first call':>11}")
    for name in args.methods:
        method = functools.partial(js.METHODS[name], **SMALL.get(name, {}))
        start = time.perf_counter()
        jax.block_until_ready(method(wrapped, x, 1))
        first = time.perf_counter() - start
        plain = sending(by_hand(method, wrapped, x), args.repeats)
        ours = sending(functools.partial(method, wrapped, x, 1), args.repeats)
        bare = sending(functools.partial(method, raw, x, 1), args.repeats)
        print(
            f"{name:26} {plain:8.2f} {ours:8.2f} {ours / plain:6.1f} {bare:8.2f} {bare / plain:6.1f} {first:10.1f}s",
            flush=True,
        )
        jax.clear_caches()


if __name__ == "__main__":
    main()
