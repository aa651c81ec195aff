"""What each method costs over the classifier evaluations it cannot do without, and next to its peers.

    python benchmarks/speed.py                        # every method on SqueezeNet 1.1, random weights
    python benchmarks/speed.py --peers                # captum and pytorch-grad-cam beside it (pip install '.[peers]')

For each method: seconds to compile and run first, seconds a call (median), and the ratio to the bare evaluations it
must make: forward passes, forward and backward passes, passes from the explained layer on, each timed alone in this
same run at the same batch size. "bare" is the classifier as it stands; "same form" the classifier in the form methods
run it in (on CPU, 1x1 convolutions as products and max-pools as slices), the stricter measure: its limit is 1.1.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxsal as js
from jaxsal.tracing._lowering import lowered

STEPS, SAMPLES, BATCH = 8, 8, 8
OPTIONS = {
    "integrated_gradients": {"num_steps": STEPS, "batch_size": BATCH},
    "blur_integrated_gradients": {"num_steps": STEPS, "batch_size": BATCH},
    "smooth_gradient": {"num_samples": SAMPLES, "batch_size": BATCH},
    "var_gradient": {"num_samples": SAMPLES, "batch_size": BATCH},
    "score_cam": {"batch_size": BATCH},
    "ablation_cam": {"batch_size": BATCH},
}


AGNOSTIC = ("eigen_cam", "kpca_cam", "eigen_salience", "eigen_fused", "signature", "fem")


def evaluations(name: str, channels: int) -> dict[str, float]:
    """What a method must evaluate for one image: forward, both (forward and backward), head, head_both."""
    layer = {"features": 1, "head_both": 1}
    return {
        "gradient": {"both": 1},
        "input_x_gradient": {"both": 1},
        "integrated_gradients": {"both": STEPS},
        "blur_integrated_gradients": {"both": STEPS},
        "smooth_gradient": {"both": SAMPLES},
        "var_gradient": {"both": SAMPLES + 1},
        "deconvnet": {"both": 1},
        "guided_backprop": {"both": 1},
        "cam": {"forward": 1},
        "guided_grad_cam": {"both": 1, **layer},
        "score_cam": {"forward": channels + 2},
        "ablation_cam": {"features": 1, "head": channels + 1},
        **{name: {"features": 1} for name in AGNOSTIC},
    }.get(name, layer)


def clock(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of the first call (compiling), and the median of the later ones."""

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    return once(), statistics.median(once() for _ in range(repeats))


def bare(f: object, x: jax.Array, layer: str, repeats: int) -> dict[str, float]:
    """Seconds an image of each kind of evaluation, alone, ``BATCH`` images in flight."""
    chunk = jnp.concatenate([x] * -(-BATCH // x.shape[0]))[:BATCH]
    features, head = js.split(f, layer)
    maps = jax.jit(lambda g, v: g(v))(features, chunk)
    score = lambda g, *a: g(*a)[:, 0].sum()  # noqa: E731
    runs = {
        "forward": (lambda g, v: g(v), f, chunk),
        "both": (jax.grad(score, 1), f, chunk),
        "features": (lambda g, v: g(v), features, chunk),
        "head": (lambda g, v, a: g(v, a), head, chunk, maps),
        "head_both": (jax.grad(score, 2), head, chunk, maps),
    }
    out = {}
    for name, (fn, *args) in runs.items():
        compiled = jax.jit(fn)
        out[name] = clock(lambda c=compiled, a=args: c(*a), repeats)[1] / BATCH
    return out


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="squeezenet1_1", help="a name of js.models.list()")
    parser.add_argument("--size", type=int, default=224, help="image height and width")
    parser.add_argument("--images", type=int, default=8, help="images in the batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--method", action="append", help="only these methods")
    parser.add_argument("--peers", action="store_true", help="time captum and pytorch-grad-cam too")
    parser.add_argument("--out", type=Path, help="write a CSV file")
    options = parser.parse_args()

    f = js.models.create(options.model)
    if options.peers:
        if options.model != "squeezenet1_1":
            parser.error("--peers: only with --model squeezenet1_1")
        sys.path.insert(0, str(Path(__file__).parent))
        from peers import peer_methods, state_dict

        state = state_dict(f)
        f = js.models.from_torchvision(options.model, state)
    x = jax.random.uniform(jax.random.key(0), (options.images, options.size, options.size, 3))
    layer = f.cam_layer
    channels = js.taps(f, x)[layer].shape[-1]
    plain, form = (bare(g, x, layer, options.repeats) for g in (f, lowered(f)))
    print(f"{options.model}, {options.images} x {options.size} px, {jax.devices()[0].device_kind}")
    for title, costs in (("bare", plain), ("same form", form)):
        print(f"  {title:9}", ", ".join(f"{k} {1e3 * v:.1f} ms" for k, v in costs.items()), "an image")
    peers = peer_methods(state, f, x, OPTIONS) if options.peers else {}
    rows = []
    print(f"{'method':26}{'first s':>9}{'call s':>9}{'/bare':>8}{'/same form':>12}{'peer s':>9}{'peer/ours':>11}")
    for name, method in js.METHODS.items():
        if options.method and name not in options.method:
            continue
        settings = OPTIONS.get(name, {})
        try:
            first, call = clock(lambda m=method, s=settings: m(f, x, 3, **s), options.repeats)
        except ValueError as error:  # plain CAM on a network without pooling and dense, say
            print(f"{name:26} not applicable: {error}")
            continue
        need = evaluations(name, channels)
        ratios = [call / (options.images * sum(costs[k] * n for k, n in need.items())) for costs in (plain, form)]
        peer = clock(peers[name], max(1, options.repeats // 2))[1] if name in peers else None
        shown = f"{peer:9.3f}{peer / call:11.2f}" if peer else ""
        print(f"{name:26}{first:9.2f}{call:9.3f}{ratios[0]:8.2f}{ratios[1]:12.2f}{shown}", flush=True)
        rows.append([options.model, options.size, options.images, name, first, call, *ratios, peer])
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["model", "size", "images", "method", "first_s", "call_s", "over_bare", "over_same_form", "peer_s"]
            )
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
