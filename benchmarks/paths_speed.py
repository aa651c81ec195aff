"""What an ablation path costs beyond the classifier, in one run.

    python benchmarks/paths_speed.py

Prints: a path of 14 masks of 64 x 64 over its bare evaluations (forward and back, the same chunks, one program); 8
images together over 8 alone; the projection of 14 x 64 x 64 and of 64 x 224 x 224 over one ResNet-50 batch forward and
back. Seconds are medians without compilation, which is given apart. Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxsal as js
from jaxsal.tracing._lowering import lowered


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of a call, and of the first one on top of that (compilation)."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - begin
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), first - statistics.median(seconds)


@jax.jit
def back(f: Any, x: jax.Array) -> jax.Array:
    """The gradient of the summed top logits."""
    return jax.grad(lambda x: lowered(f)(x).max(-1).sum())(x)


def repeated(count: int, batch: int) -> Callable:
    """``count`` evaluations forward and back, ``batch`` at a time, in one program."""

    @jax.jit
    def run(f: Any, x: jax.Array) -> jax.Array:
        def body(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 1e-3 * jax.grad(lambda x: lowered(f)(x).max(-1).sum())(x), None

        return jax.lax.scan(body, x, None, -(-count // batch))[0]

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_1")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    print(f"{options.network}, {jax.devices()[0].device_kind}, batch_size {options.batch_size}")

    f = js.classifiers.wrap(js.models.create(options.network, rngs=nnx.Rngs(0)))
    x = jax.random.uniform(jax.random.key(0), (8, 224, 224, 3))
    settings = {
        "num_masks": 14, "score": "retaining", "baseline": 0.0, "num_iterations": options.iterations,
        "batch_size": options.batch_size,
    }  # fmt: skip

    def path(x: jax.Array) -> Any:
        return js.ablation_path(f, x, 0, **settings).masks

    bare = repeated(14 * options.iterations, options.batch_size)
    together_bare = repeated(8 * 14 * options.iterations, options.batch_size)
    chunk = jnp.tile(x, (-(-options.batch_size // 8), 1, 1, 1))[: options.batch_size]
    one, compiling = timed(lambda: path(x[:1]), options.repeats)
    floor, _ = timed(lambda: bare(f, chunk), options.repeats)
    print(f"one image  {one:8.2f} s  bare {floor:8.2f} s  ratio {one / floor:.3f}  (compilation {compiling:.1f} s)")
    eight, compiling = timed(lambda: path(x), 1)
    floor, _ = timed(lambda: together_bare(f, chunk), 1)
    print(f"8 together {eight:8.2f} s  bare {floor:8.2f} s  ratio {eight / floor:.3f}  (compilation {compiling:.1f} s)")
    print(f"8 together over 8 alone: {eight / (8 * one):.3f}")

    resnet = js.classifiers.wrap(js.models.create("resnet50", rngs=nnx.Rngs(0)))
    floor, _ = timed(lambda: back(resnet, x), options.repeats)
    print(f"ResNet-50, 8 images forward and back: {floor:.3f} s")
    for shape in ((8, 14, 64, 64), (1, 64, 224, 224)):
        masks = jax.random.uniform(jax.random.key(1), shape)
        for how in ("minmax", "pool"):
            seconds, _ = timed(lambda masks=masks, how=how: js.paths.project(masks, monotone=how), options.repeats)
            print(f"projection of {shape}, {how}: {1e3 * seconds:8.1f} ms, {seconds / floor:.2%} of that")


if __name__ == "__main__":
    main()
