"""What holds for a classifier made from any framework."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.tracing._taps import taps


def big_constants(f, x, limit=16):
    """Shapes of the constants of more than ``limit`` different values in the program for ``f(x)``."""
    text = jax.jit(lambda f, x: f(x)).lower(f, x).as_text()
    found = re.findall(r"stablehlo\.constant dense(?:_resource)?<[\[\"_a-z].*?> : tensor<([0-9x]*)x[a-z0-9]+>", text)
    return [shape for shape in found if np.prod([int(n) for n in shape.split("x")]) > limit]


def check(f, other, reference, x, names, leaves):
    """Contract of ``f``, made from a model; ``other`` is one of the same structure and other parameters.

    Args:
      f: classifier under test.
      other: another, that must not cause a new trace.
      reference: the model itself.
      x: images, in the layout of the model.
      names: taps, in order of evaluation.
      leaves: number of parameter arrays.
    """
    logits = np.asarray(reference(x))
    np.testing.assert_allclose(f(x), logits, atol=1e-6, rtol=1e-6)
    assert list(taps(f, x)) == names
    assert len(jax.tree.leaves(f)) == leaves
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(f))

    # One program for all parameters, which holds none of them.
    traces = []

    @jax.jit
    def run(f, x):
        traces.append(1)
        return f(x)

    np.testing.assert_allclose(run(f, x), logits, atol=1e-5)
    assert not np.allclose(run(other, x), logits, atol=1e-3)
    np.testing.assert_allclose(run(other, x), other(x), atol=1e-5)
    assert len(traces) == 1
    assert big_constants(f, x) == []
    closed_over = jax.tree_util.Partial(f.__call__)
    assert big_constants(closed_over, x) != []  # they would be seen

    # Gradients by all floating-point parameters, and by the images.
    def loss(parameters, x):
        return (whole(parameters)(x) ** 2).sum()

    parameters, whole = floats(f)
    by_parameters, by_images = jax.grad(loss, (0, 1))(parameters, x)
    assert all(bool(jnp.isfinite(g).all()) for g in by_parameters)
    assert sum(bool((g != 0).any()) for g in by_parameters) >= 2
    np.testing.assert_allclose(by_images, jax.grad(lambda x: (reference(x) ** 2).sum())(x), atol=1e-5)

    # A further axis.
    many = jnp.stack([x, x / 2])
    np.testing.assert_allclose(jax.vmap(f)(many), np.stack([f(x), f(x / 2)]), atol=1e-5)


def floats(f):
    """The floating-point leaves of ``f``, and the function that puts them back."""
    leaves, tree = jax.tree.flatten(f)
    where = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def whole(values):
        new = list(leaves)
        for i, value in zip(where, values):
            new[i] = value
        return jax.tree.unflatten(tree, new)

    return [leaves[i] for i in where], whole
