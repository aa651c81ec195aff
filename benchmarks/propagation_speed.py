"""What relevance and DeepLIFT cost over a forward and backward pass, and beside zennit and captum.

    python benchmarks/propagation_speed.py --model squeezenet1_1 resnet18
    python benchmarks/propagation_speed.py --peers    # zennit and captum on SqueezeNet 1.1 (pip install '.[peers]')

For each method, in one run: seconds to compile and run first, seconds a call (median), its ratio to value and gradient
of the classifier as it stands ("bare") and in the form that methods run it in ("same form"), temporary memory over that
of the gradient, and how many times longer the peer takes. Limits: 1.5 for LRP and DeepLIFT, 2.5 for αβ and γ, 3 for
RevealCancel; memory 1.3.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from speed import clock

import jaxsal as js
from jaxsal.tracing._lowering import lowered

TARGET = 3
OURS: dict[str, Callable[..., Any]] = {
    **{f"lrp {name}": functools.partial(js.lrp, composite=name) for name in js.composites.COMPOSITES},
    "deep_taylor": js.deep_taylor,
    "deeplift rescale": js.deeplift,
    "deeplift reveal_cancel": functools.partial(js.deeplift, rule="reveal_cancel"),
    "excitation_backprop": js.excitation_backprop,
    "cnn_fixations": js.cnn_fixations,
}


def memory(fn: Callable[..., Any], *args: Any) -> int:
    """Temporary bytes of the compiled program."""
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def peers(state: dict[str, np.ndarray], x: jax.Array) -> dict[str, Callable[[], Any]]:
    """zennit and captum on the same network, by our name."""
    import captum.attr as ca
    import torch
    from peers import squeezenet, stand_in_for_torchvision

    stand_in_for_torchvision()
    import zennit.composites as zc
    from zennit.attribution import Gradient

    torch.set_num_threads(os.cpu_count() or 1)
    net = squeezenet(state)
    images = torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous()
    one_hot = torch.zeros(len(images), 1000)
    one_hot[:, TARGET] = 1

    def zennit(composite: Any) -> Callable[[], Any]:
        def call() -> Any:
            with Gradient(model=net, composite=composite) as attributor:
                return attributor(images, one_hot)[1]

        return call

    low, high = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    return {
        "lrp epsilon_plus": zennit(zc.EpsilonPlus()),
        "lrp epsilon_plus_flat": zennit(zc.EpsilonPlusFlat()),
        "lrp epsilon_alpha2_beta1": zennit(zc.EpsilonAlpha2Beta1()),
        "lrp epsilon_alpha2_beta1_flat": zennit(zc.EpsilonAlpha2Beta1Flat()),
        "lrp epsilon_gamma_box": zennit(zc.EpsilonGammaBox(low=low, high=high)),
        "excitation_backprop": zennit(zc.ExcitationBackprop()),
        "deeplift rescale": lambda: ca.DeepLift(net).attribute(images, target=TARGET),
    }


def both(x: jax.Array, f: Any) -> Any:
    """Value and gradient of a logit."""
    return jax.value_and_grad(lambda x: f(x)[:, TARGET].sum())(x)


def table(model: str, f: Any, x: jax.Array, names: list[str], theirs: dict[str, Any], repeats: int) -> None:
    """Measure and print one network's table."""
    plain, form = (clock(functools.partial(jax.jit(both), x, g), repeats)[1] for g in (f, lowered(f)))
    least = memory(both, x, f)
    print(f"{model}, {x.shape[0]} x {x.shape[1]} px, {jax.devices()[0].device_kind}")
    print(f"  forward and backward: bare {plain:.3f} s, same form {form:.3f} s, {least / 2**20:.0f} MiB bare")
    print(f"{'method':32}{'first s':>9}{'call s':>9}{'/bare':>8}{'/same form':>12}{'memory':>8}{'peer/ours':>11}")
    for name in names:
        method = functools.partial(OURS[name], target=TARGET)
        first, call = clock(functools.partial(method, f, x), repeats)
        taken = memory(lambda x, f, m=method: m(f, x), x, f) / least
        line = f"{name:32}{first:9.2f}{call:9.3f}{call / plain:8.2f}{call / form:12.2f}{taken:8.2f}"
        if name in theirs:
            line += f"{clock(theirs[name], max(1, repeats // 2))[1] / call:11.2f}"
        print(line, flush=True)


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["squeezenet1_1"], help="names of js.models.list()")
    parser.add_argument("--size", type=int, default=224, help="image height and width")
    parser.add_argument("--images", type=int, default=8, help="images in the batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--method", nargs="+", choices=list(OURS), help="only these")
    parser.add_argument("--peers", action="store_true", help="time zennit and captum too (SqueezeNet 1.1)")
    options = parser.parse_args()
    x = jax.random.uniform(jax.random.key(0), (options.images, options.size, options.size, 3))
    for model in options.model:
        f, theirs = js.models.create(model), {}
        if options.peers and model == "squeezenet1_1":
            from peers import state_dict

            state = state_dict(f)
            f, theirs = js.models.from_torchvision(model, state), peers(state, x)
        names = [name for name in OURS if not options.method or name in options.method]
        table(model, f, x, names, theirs, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
