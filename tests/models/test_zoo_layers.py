"""Pooling against loops over windows."""

import jax
import numpy as np
import pytest

from jaxsal.models._architectures.layers import (
    adaptive_average,
    average_pool,
    averaging_matrix,
    global_average,
    max_pool,
)


def pooled(x, kernel, stride, padding, ceil_mode, reduce):
    """PyTorch's pooling of [n h w c], window by window: only what is inside the image counts."""

    def starts(size):
        span = size + 2 * padding - kernel
        count = (-(-span // stride) if ceil_mode else span // stride) + 1
        return [s for i in range(count) if (s := i * stride - padding) < size]

    _, height, width, _ = x.shape
    rows = [
        [reduce(x[:, max(r, 0) : r + kernel, max(c, 0) : c + kernel], axis=(1, 2)) for c in starts(width)]
        for r in starts(height)
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


@pytest.mark.parametrize("size", [(6, 7), (8, 9), (13, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode"),
    [
        (2, 2, 0, False),
        (2, 2, 0, True),
        (3, 2, 0, False),
        (3, 2, 0, True),
        (3, 2, 1, False),
        (3, 1, 1, True),
        (2, 3, 1, True),
    ],
)
def test_max_pool(size, kernel, stride, padding, ceil_mode):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) - 5  # negative: padding must not win
    expected = pooled(x, kernel, stride, padding, ceil_mode, np.max)
    np.testing.assert_array_equal(max_pool(x, kernel, stride, padding, ceil_mode=ceil_mode), expected)


def test_average_pool():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(average_pool(x, 2, 2), pooled(x, 2, 2, 0, False, np.mean), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 9, 14])
def test_adaptive_average_of_any_size(size):
    x = np.random.default_rng(0).normal(size=(2, size, 4, 3)).astype(np.float32)
    expected = np.zeros((2, 6, 6, 3))
    for i in range(6):
        for j in range(6):
            rows = slice(int(np.floor(i * size / 6)), int(np.ceil((i + 1) * size / 6)))
            columns = slice(int(np.floor(j * 4 / 6)), int(np.ceil((j + 1) * 4 / 6)))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_average(x, 6), expected, atol=1e-6)


def test_adaptive_average_of_the_right_size_is_the_identity():
    np.testing.assert_array_equal(averaging_matrix(7, 7), np.eye(7))
    x = np.ones((1, 7, 7, 2), np.float32)
    assert not jax.make_jaxpr(lambda x: adaptive_average(x, 7))(x).eqns


def test_global_average_keeps_its_axes():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(global_average(x), x.mean((1, 2), keepdims=True), atol=1e-6)


def test_windows_larger_than_the_image_raise():
    with pytest.raises(ValueError, match=r"image too small: got maps of 2 x 9 pixels at a 3 x 3 max-pool"):
        max_pool(np.ones((1, 2, 9, 1), np.float32), 3, 2)
