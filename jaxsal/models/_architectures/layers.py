"""The few layers that the networks share: Flax NNX modules and plain pooling functions, channels last.

Pooling is ``lax.reduce_window`` and convolution ``lax.conv_general_dilated``, so that rules that re-route the
backward pass find the primitives they know.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxsal._checks import message
from jaxsal._types import Array, Float
from jaxsal.tracing._taps import tap

# Normal numbers drawn by one compiled program.
_BLOCK = 2**18


@jax.jit
def _normal_block(key: Any, index: Any) -> Any:
    return jax.random.normal(jax.random.fold_in(key, index), (_BLOCK,))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _assemble(blocks: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    scale = math.sqrt(2 / math.prod(shape[:-1]))
    return (scale * jnp.concatenate(blocks)[: math.prod(shape)]).reshape(shape).astype(dtype)


def he_normal(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """Weights for layers before a rectifier: normal, variance ``2 / fan_in``.

    Drawn in blocks of one size, since compiling a random generator for every shape takes seconds a network.

    References:
      He et al., Delving Deep into Rectifiers (2015), Eq. 10.
    """
    count = -(-math.prod(shape) // _BLOCK)
    return _assemble([_normal_block(key, index) for index in range(count)], shape, dtype)


def conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    padding: int | str = 0,
    *,
    groups: int = 1,
    bias: bool = True,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution, as PyTorch's ``Conv2d``; ``padding`` a side, or ``"SAME"`` as in TensorFlow."""
    return nnx.Conv(
        inputs,
        outputs,
        (kernel, kernel),
        strides=(stride, stride),
        padding=padding if isinstance(padding, str) else ((padding, padding), (padding, padding)),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_normal,
        rngs=rngs,
    )


def dense(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer."""
    return nnx.Linear(inputs, outputs, kernel_init=he_normal, rngs=rngs)


def batch_norm(features: int, epsilon: float = 1e-5, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation with its running statistics."""
    return nnx.BatchNorm(features, use_running_average=True, momentum=0.9, epsilon=epsilon, rngs=rngs)


def _window_padding(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
    """Padding before and after one axis, so that the windows are PyTorch's."""
    if not ceil_mode:
        return padding, padding
    windows = -(-(size + 2 * padding - kernel) // stride) + 1
    if (windows - 1) * stride >= size + padding:  # a window must not start beyond the image and its left padding
        windows -= 1
    return padding, (windows - 1) * stride + kernel - size - padding


def max_pool(
    x: Float[Array, "n h w c"], kernel: int, stride: int, padding: int = 0, *, ceil_mode: bool = False
) -> Float[Array, "n p q c"]:
    """Maximum over square windows, as PyTorch's ``MaxPool2d``.

    ``ceil_mode`` keeps the last window when it covers the image only in part.

    Args:
      x: maps, float[n h w c].
      kernel: side of the window, in pixels.
      stride: step between windows, in pixels.
      padding: rows and columns of minus infinity added on each side.
      ceil_mode: round the number of windows up instead of down.

    Returns:
      float[n p q c].
    """
    _, height, width, _ = x.shape
    if min(height, width) + 2 * padding < kernel:
        what = f"maps of {height} x {width} pixels at a {kernel} x {kernel} max-pool"
        raise ValueError(message("image too small", what, f"at least {kernel} x {kernel}", "Use larger images."))
    rows, columns = (_window_padding(size, kernel, stride, padding, ceil_mode) for size in (height, width))
    window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), rows, columns, (0, 0)))


def average_pool(x: Float[Array, "n h w c"], kernel: int, stride: int) -> Float[Array, "n p q c"]:
    """Mean over square windows without padding, as PyTorch's ``AvgPool2d``.

    Args:
      x: maps, float[n h w c].
      kernel: side of the window, in pixels.
      stride: step between windows, in pixels.

    Returns:
      float[n p q c].
    """
    sums = lax.reduce_window(x, 0.0, lax.add, (1, kernel, kernel, 1), (1, stride, stride, 1), "VALID")
    return sums / kernel**2


def _not_empty(x: Any) -> None:
    if 0 in x.shape[1:3]:
        raise ValueError(message("image too small", f"feature maps {tuple(x.shape)}", "no empty axis"))


def global_average(x: Float[Array, "n h w c"]) -> Float[Array, "n 1 1 c"]:
    """Mean over rows and columns, which stay as axes of length one."""
    _not_empty(x)
    return jnp.mean(x, axis=(1, 2), keepdims=True)


def averaging_matrix(size: int, bins: int) -> np.ndarray:
    """The matrix of PyTorch's adaptive average pooling of one axis.

    ``M[i, j] = 1/(b - a)`` for ``a <= j < b``, where ``a = floor(i size / bins)`` and
    ``b = ceil((i + 1) size / bins)``.

    Args:
      size: length of the axis.
      bins: length wanted; longer than ``size`` repeats entries.

    Returns:
      float32[bins size]; each row sums to one.
    """
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        first, last = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def adaptive_average(x: Float[Array, "n h w c"], bins: int) -> Float[Array, "n b b c"]:
    """Average pooling to ``bins`` x ``bins`` from any size, as PyTorch's ``AdaptiveAvgPool2d``.

    ``y = R x C^T`` with one constant averaging matrix an axis; ``x`` itself where the size is right already.

    Args:
      x: maps, float[n h w c].
      bins: rows and columns of the result.

    Returns:
      float[n bins bins c].
    """
    _not_empty(x)
    if x.shape[1] != bins:
        x = jnp.einsum("nhwc,ph->npwc", x, jnp.asarray(averaging_matrix(x.shape[1], bins), x.dtype))
    if x.shape[2] != bins:
        x = jnp.einsum("npwc,qw->npqc", x, jnp.asarray(averaging_matrix(x.shape[2], bins), x.dtype))
    return jnp.asarray(x)


def relu(x: Any, name: str) -> Any:
    """``max(x, 0)``, tapped under ``name``."""
    return tap(jax.nn.relu(x), name)


def sequential(layers: nnx.Dict, steps: tuple[str, ...], x: Any, name: str, pool: Any = max_pool) -> Any:
    """Run a chain of layers as PyTorch's ``Sequential`` does.

    Args:
      layers: the layers that have parameters, keyed by their position ("0", "3", ...).
      steps: what stands at each position: "layer"; "block", a layer with taps of its own, called as
        ``block(x, name)``; "relu"; "pool"; "dropout", which is the identity.
      x: input of the first step.
      name: name of the chain. Activations and poolings are tapped as ``name.position``, the result as
        ``name``.
      pool: what "pool" does.

    Returns:
      The output of the last step.
    """
    for position, step in enumerate(steps):
        child = f"{name}.{position}"
        if step == "layer":
            x = layers[str(position)](x)
        elif step == "block":
            x = layers[str(position)](x, child)
        elif step == "relu":
            x = relu(x, child)
        elif step == "pool":
            x = tap(pool(x), child)
    return tap(x, name)
