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
from typing import Any

import jax
import jax.numpy as jnp

import jaxsal as js
from jaxsal.tracing._lowering import lowered

STEPS, SAMPLES, BATCH = 8, 8, 8
CELLS, MASKS, ITERATIONS = 4, 3, 2  # patches along a side; of an ablation path
Costs = dict[str, float]


def settings(x: jax.Array) -> dict[str, dict[str, Any]]:
    """Options of the methods that have a choice of how much to evaluate."""
    side = x.shape[1] // CELLS
    patches, flight = js.features.Patches(x, 0.0, side), {"batch_size": BATCH}
    return {
        "integrated_gradients": {"num_steps": STEPS, **flight},
        "blur_integrated_gradients": {"num_steps": STEPS, **flight},
        "smooth_gradient": {"num_samples": SAMPLES, **flight},
        "var_gradient": {"num_samples": SAMPLES, **flight},
        "score_cam": flight,
        "ablation_cam": flight,
        "occlusion": {"window": side, "stride": side, **flight},
        "rise": {"num_masks": SAMPLES, **flight},
        "lime": {"num_samples": SAMPLES, "basis": patches, **flight},
        "kernel_shap": {"num_samples": 2 * CELLS**2, "basis": patches, **flight},
        "shapley": {"num_permutations": 2, "basis": patches, **flight},
        "meaningful_perturbation": {"num_steps": STEPS, **flight},
        "extremal_perturbation": {"num_steps": STEPS, "areas": (0.1,), **flight},
        "ablation_path": {"num_masks": MASKS, "num_iterations": ITERATIONS, "baseline": 0.0, **flight},
    }


def evaluations(channels: int) -> dict[str, Costs]:
    """What each method must evaluate for one image: forward, both (forward and backward), features, head, head_both."""
    layer = {"features": 1, "head_both": 1}
    weighted = ("cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "eigen_grad_cam")
    one = ("gradient", "input_x_gradient", "deconvnet", "guided_backprop", "lrp", "deep_taylor", "excitation_backprop")
    agnostic = ("eigen_cam", "kpca_cam", "eigen_salience", "eigen_fused", "signature", "fem")
    return {
        **{name: {"both": 1} for name in one},
        **dict.fromkeys(weighted, layer),
        **{name: {"features": 1} for name in agnostic},
        "integrated_gradients": {"both": STEPS},
        "blur_integrated_gradients": {"both": STEPS},
        "smooth_gradient": {"both": SAMPLES},
        "var_gradient": {"both": SAMPLES + 1},
        "deeplift": {"forward": 1, "both": 1},
        "cnn_fixations": {"forward": 1},
        "guided_grad_cam": {"both": 1, **layer},
        "score_cam": {"forward": channels + 2},
        "ablation_cam": {"features": 1, "head": channels + 1},
        "occlusion": {"forward": CELLS**2 + 1},
        "rise": {"forward": SAMPLES},
        "lime": {"forward": SAMPLES + 1},
        "kernel_shap": {"forward": 2 * CELLS**2 + 2},
        "shapley": {"forward": 2 * (CELLS**2 - 1) + 2},
        "meaningful_perturbation": {"both": STEPS},
        "extremal_perturbation": {"both": STEPS},
        "ablation_path": {"both": MASKS * ITERATIONS, "forward": MASKS},
    }


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
    if unknown := {*(options.method or ())} - js.METHODS.keys():
        parser.error(f"--method: got {', '.join(sorted(unknown))}, expected some of: {', '.join(js.METHODS)}")

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
    peers = peer_methods(state, f, x, settings(x)) if options.peers else {}
    rows, chosen, needs = [], settings(x), evaluations(channels)
    if missing := js.METHODS.keys() - needs.keys():
        parser.error(f"no costs are known of {', '.join(sorted(missing))}: add them to evaluations()")
    print(f"{'method':26}{'first s':>9}{'call s':>9}{'/bare':>8}{'/same form':>12}{'peer s':>9}{'peer/ours':>11}")
    for name, method in js.METHODS.items():
        if options.method and name not in options.method:
            continue
        own = chosen.get(name, {})
        try:
            first, call = clock(lambda m=method, s=own: m(f, x, 3, **s), options.repeats)
        except ValueError as error:  # plain CAM on a network without pooling and dense, say
            print(f"{name:26} not applicable: {error}")
            continue
        need = needs[name].items()
        ratios = [call / (options.images * sum(costs[k] * n for k, n in need)) for costs in (plain, form)]
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
