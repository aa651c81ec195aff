"""What the thesis proves of ablation paths and of average gradients, in numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths.oracles import random_masks
from scipy import optimize

from jaxsal.features import Pixels
from jaxsal.paths import affine, constant_speed, pixel_ablation_path, project, score_gradient

TIMES = np.array([0.0, 0.03, 0.04, 0.3, 0.5, 0.501, 0.9, 1.0], np.float32)
WEIGHTS = np.random.default_rng(1).uniform(0.2, 3, (4, 5)).astype(np.float32)


def some_paths(weights):
    """Random masks made paths, at times that are not those they were made for; hard ones; the affine one."""
    heatmap = np.random.default_rng(2).normal(size=(2, 4, 5)).astype(np.float32)
    inner = jnp.asarray(TIMES[1:-1])
    rough = project(random_masks(2, 6, 4, 5), times=inner, weights=weights)
    again = constant_speed(rough, times=jnp.asarray(TIMES), weights=weights)
    hard = pixel_ablation_path(heatmap, jnp.asarray(TIMES), weights=weights)
    even = affine((2, 4, 5), jnp.asarray(TIMES))
    return {"rough": np.asarray(again, float), "hard": np.asarray(hard, float), "affine": np.asarray(even, float)}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_lemma_2_and_theorem_3(weights):
    """‖φ(t₁) − φ(t₀)‖₁ = |t₁ − t₀|, and ‖·‖_p ≤ |t₁ − t₀|^(1/p), with equality for what is all or nothing."""
    share = np.full((4, 5), 1 / 20) if weights is None else weights / weights.sum()
    for name, path in some_paths(weights).items():
        for i, j in itertools.combinations(range(len(TIMES)), 2):
            gap = np.abs(path[:, j] - path[:, i])
            apart = TIMES[j] - TIMES[i]
            np.testing.assert_allclose((share * gap).sum((1, 2)), apart, atol=2e-6, err_msg=name)
            for p in (1.5, 2, 7):
                norm = (share * gap**p).sum((1, 2)) ** (1 / p)
                assert (norm <= apart ** (1 / p) + 1e-5).all(), (name, p)
                if name == "affine":  # as far below the bound as can be
                    np.testing.assert_allclose(norm, apart, atol=2e-6)


def test_theorem_3_is_sharp_and_ends_at_infinity():
    """A pixel goes at once where its heatmap says: in L^p the bound is met, in L^∞ the path jumps (Remark 6)."""
    heatmap = jnp.asarray(np.random.default_rng(3).permutation(100).reshape(1, 10, 10).astype(np.float32))
    times = np.arange(21, dtype=np.float32)[1:-1] / 20  # five pixels each time
    path = np.asarray(pixel_ablation_path(heatmap, jnp.asarray(times)), float)[0]
    for i, j in ((0, 1), (3, 9), (0, 18)):
        gap = np.abs(path[j] - path[i])
        for p in (1, 2, 5):
            np.testing.assert_allclose((gap**p).mean() ** (1 / p), (times[j] - times[i]) ** (1 / p), rtol=1e-4)
        assert abs(gap.max() - 1) < 1e-4


X, BASELINE = np.array([0.9, 0.2, 0.6, 0.7]), np.array([0.1, 0.5, 0.05, 0.3])


def boundary(v, np=np):
    """G of Lemma 11: bent, negative at the baseline, positive at the image, zero once between."""
    return v[..., 0] + 0.8 * v[..., 1] ** 2 - 0.3 * np.sin(2 * v[..., 2]) + v[..., 2] * v[..., 3] - 0.55


@pytest.fixture(scope="module")
def average_gradients():
    """A(F_β) of F_β = σ(β G) along the segment, for rising β: the time integral of the affine path's gradient."""
    times = jnp.asarray((np.arange(4096) + 0.5) / 4096, jnp.float32)
    x, baseline = (jnp.asarray(v, jnp.float32).reshape(1, 2, 2, 1) for v in (X, BASELINE))

    def of(beta):
        def f(images):
            flat = images.reshape(images.shape[0], 4)
            return jnp.stack([jnp.zeros(len(images)), beta * boundary(flat, jnp)], -1)

        slope = score_gradient(
            f, x, 1, basis=Pixels(x, baseline, (2, 2)), masks=affine((1, 2, 2), times), batch_size=None
        )
        return np.asarray(slope[0].mean(0), float).ravel() / (BASELINE - X)

    return {beta: of(beta) for beta in (16.0, 64.0, 256.0)}


def crossing():
    assert boundary(BASELINE) < 0 < boundary(X)
    at = lambda t: (1 - t) * X + t * BASELINE  # noqa: E731
    values = np.array([boundary(at(t)) for t in np.linspace(0, 1, 1001)])
    assert (np.diff(values) < 0).all()  # strictly monotone, as the lemma asks
    return at(optimize.brentq(lambda t: boundary(at(t)), 0, 1))


def test_lemma_11(average_gradients):
    """⟨A(F_β), v⟩ → 0 for every v tangent to the decision boundary where the segment crosses it."""
    normal = np.asarray(jax.grad(lambda v: boundary(v, jnp))(jnp.asarray(crossing(), jnp.float32)), float)
    tangents = np.linalg.svd(normal[None])[2][1:]
    along = [np.abs(tangents @ a).max() for a in average_gradients.values()]
    assert along[0] > 0.02
    assert all(after < before / 3 for before, after in itertools.pairwise(along)), along
    # Across it does not: there A is the jump of F, 1, by how fast the segment goes through, (x − x_BL)·n.
    across = average_gradients[256.0] @ normal / np.linalg.norm(normal)
    np.testing.assert_allclose(across, np.linalg.norm(normal) / (normal @ (X - BASELINE)), rtol=1e-3)


def test_lemma_1(average_gradients):
    """AverageGrads points along the normal of the decision boundary."""
    normal = np.asarray(jax.grad(lambda v: boundary(v, jnp))(jnp.asarray(crossing(), jnp.float32)), float)
    angles = [np.arccos(min(1, a @ normal / np.linalg.norm(a) / np.linalg.norm(normal)))
              for a in average_gradients.values()]  # fmt: skip
    assert (np.diff(angles) < 0).all() and angles[0] > np.radians(1) and angles[-1] < np.radians(0.1), angles
