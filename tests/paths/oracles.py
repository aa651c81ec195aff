"""Slow and independent: the definitions as loops over numbers, and a classifier that compiles in no time."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from jaxsal import paths


def minmax(p, statistic=lambda block: (block.min() + block.max()) / 2):
    """max over starts up to t of the min over ends from t of the statistic of the block."""
    steps = len(p)
    return np.array(
        [
            max(min(statistic(p[a : b + 1]) for b in range(t, steps)) for a in range(t + 1))
            for t in range(steps)
        ]
    )  # fmt: skip


def smallest_distance(p):
    """Least largest difference between ``p`` and anything that nowhere falls, by linear programming."""
    steps = len(p)
    near = np.vstack(
        [np.hstack([np.eye(steps), -np.ones((steps, 1))]), np.hstack([-np.eye(steps), -np.ones((steps, 1))])]
    )
    rising = np.hstack([np.eye(steps)[:-1] - np.eye(steps)[1:], np.zeros((steps - 1, 1))])
    bounds = [(None, None)] * steps + [(0, None)]
    found = optimize.linprog(
        np.r_[np.zeros(steps), 1], np.vstack([near, rising]), np.r_[p, -p, np.zeros(steps - 1)], bounds=bounds
    )
    assert found.success
    return found.fun


def constant_speed(masks, weights):
    """Lemma 7 by its three cases, of the polygon through 0, the masks of one image ``[t j]``, and 1."""
    times = np.arange(1, len(masks) + 1) / (len(masks) + 1)
    whole = [np.zeros_like(masks[0]), *masks, np.ones_like(masks[0])]
    masses = [float(m @ weights) for m in whole]
    out = []
    for time in times:
        before = max(i for i, mass in enumerate(masses) if mass <= time)
        after = min(i for i, mass in enumerate(masses) if mass > time)
        eta = (time - masses[before]) / (masses[after] - masses[before])
        out.append((1 - eta) * whole[before] + eta * whole[after])
    return np.array(out)


def project(masks, weights):
    """Algorithm 2, lines 12 to 15, of the masks of one image ``[t j]``."""
    rising = np.stack([minmax(masks[:, j]) for j in range(masks.shape[1])], 1)
    return constant_speed(np.clip(rising, 0, 1), weights)


def saturate(masks, zeta):
    return 0.5 * (np.tanh((2 * masks - 1) * zeta) / np.tanh(zeta) + 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Where:
    """Logits that are weighted means of the image: class 1 looks at a rectangle, the others everywhere."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return jnp.einsum("nhwc,hwck->nk", x, self.kernel) + self.bias


def where(size=8, classes=3, rows=slice(1, 4), columns=slice(4, 7), strength=6.0, bias=-3.0, channels=3):
    """Class 1 is the rectangle, bright: an image of ones has its logit at ``strength + bias``."""
    kernel = 0.0125 * np.random.default_rng(0).normal(size=(size, size, channels, classes)).astype(np.float32)
    kernel[..., 1] = 0
    kernel[rows, columns, :, 1] = strength / (3 * 3 * channels)
    return Where(jnp.asarray(kernel), jnp.zeros(classes).at[1].set(bias))


def random_masks(*shape, seed=0, noise=0.3):
    """Masks ``[n t *mask]`` around the affine path, with falls and values outside of [0, 1]."""
    rng = np.random.default_rng(seed)
    times = np.arange(1, shape[1] + 1) / (shape[1] + 1)
    return (times.reshape(-1, *[1] * (len(shape) - 2)) + noise * rng.normal(size=shape)).astype(np.float32)


def optimised(f, x, target=None, *, preset="default", method=paths.ablation_path, **options):
    """``ablation_path`` with every setting as a keyword."""
    own = {field.name for field in dataclasses.fields(paths.Settings)}
    own -= {"objective", "blur_sigma", "saturation", "num_iterations"}
    changed = {name: options.pop(name) for name in [*options] if name in own}
    settings = paths.settings.preset(preset).replace(**changed)
    return method(f, x, target, settings=settings, **options)
