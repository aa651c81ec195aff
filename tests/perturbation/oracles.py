"""Classifiers and slow, independent answers for the tests of perturbation methods."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Linear:
    """Logits linear in the image."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return jnp.einsum("nhwc,hwck->nk", x, self.weight, precision="highest") + self.bias


def linear(size=12, classes=3, seed=0):
    shape = (size, size, 3, classes) if isinstance(size, int) else (*size, 3, classes)
    return Linear(jax.random.normal(jax.random.key(seed), shape) / 10, jnp.arange(classes) - 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Square:
    """Class 1 to the extent that the image is bright at rows and columns 2 to 5; nothing else counts."""

    gain: jax.Array

    def __call__(self, x):
        seen = x[:, 2:6, 2:6].mean((1, 2, 3))
        return jnp.stack([jnp.zeros(len(x)), self.gain * (seen - 0.5)], -1)


def coalition_values(f, basis, target, image):
    """Score of one image for every set of features that is there, as a dictionary of frozensets."""
    one = jax.tree.map(lambda leaf: leaf[image : image + 1], basis)
    valid = np.flatnonzero(np.asarray(one.valid).ravel())
    sets = [frozenset(s) for k in range(len(valid) + 1) for s in itertools.combinations(valid.tolist(), k)]
    masks = np.array([[float(j not in s) for j in range(basis.num_features)] for s in sets], np.float32)
    many = basis.take(np.full(len(sets), image))
    scores = np.asarray(f(many(jnp.asarray(masks.reshape(-1, *basis.mask_shape)))), np.float64)[:, target]
    return dict(zip(sets, scores)), valid


def shapley_values(f, basis, target, image):
    """Shapley's formula, summed over every coalition."""
    value, valid = coalition_values(f, basis, target, image)
    out, players = np.zeros(basis.num_features), len(valid)
    for j in valid:
        for s, v in value.items():
            if j not in s:
                weight = math.factorial(len(s)) * math.factorial(players - len(s) - 1) / math.factorial(players)
                out[j] += weight * (value[s | {j}] - v)
    return out


def per_feature(basis, heatmap):
    """The value each feature is filled with, ``[n features]``, read off a heatmap; 0 where a feature is not there."""
    out = np.zeros((basis.num_images, basis.num_features))
    for j in range(basis.num_features):
        mask = jnp.zeros((basis.num_images, basis.num_features)).at[:, j].set(1.0)
        here = np.asarray(basis.heatmap(mask.reshape(-1, *basis.mask_shape))) == 1
        for i in range(basis.num_images):
            if here[i].any():
                found = np.asarray(heatmap)[i][here[i]]
                assert np.ptp(found) <= 1e-6 * max(abs(found).max(), 1)
                out[i, j] = found[0]
    return out
