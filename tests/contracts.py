"""The contract every method keeps. A new method joins by one line in ``test_contracts.py``.

All tests of a method run it on two images of 8 × 8 where they can: they share its compiled program.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import Tiny, images, tiny

import jaxsal as js


@dataclasses.dataclass(frozen=True, eq=False)
class Contract:
    """A method with the options it is tested with.

    Attributes:
      method: ``(f, x, target, **options)``.
      options: small settings.
      atol: allowed difference, in parts of the answer's largest magnitude, where equal sums are taken in other orders.
      differentiable: whether its derivative can be checked on a smooth network (False where it needs ReLUs).
      bf16: least cosine similarity of the bfloat16 answer to that in float32.
      targeted: whether it looks at the target.
      long: whether it compiles for long: the tests that compile it several times are slow ones then.
    """

    method: Any
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    atol: float = 2e-5
    differentiable: bool = True
    bf16: float = 0.97
    targeted: bool = True
    long: bool = False

    def __call__(self, f, x, target=1, **more):
        return self.method(f, x, target, **{**self.options, **more})


def close(got, want, atol):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(got).all() and np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=0, atol=atol * max(np.abs(want).max(), 1e-12))


@functools.cache
def jitted(contract):
    """One program of the method for every test that wants it inside ``jax.jit``."""
    return jax.jit(contract.__call__)


class MethodContracts:
    """Inherit, and parametrise ``contract``."""

    def test_answer(self, contract):
        f, x = tiny(), images(2, 8)
        out = contract(f, x)
        assert out.shape in (x.shape, x.shape[:3])
        assert out.dtype == x.dtype
        assert np.isfinite(out).all() and np.abs(out).max() > 0
        assert np.abs(np.asarray(out[0]) - np.asarray(out[1])).max() > 0

    def test_target(self, contract):
        f, x = tiny(), images(2, 8)
        top = np.asarray(f(x)).argmax(-1)
        close(contract(f, x, None), contract(f, x, jnp.asarray(top)), contract.atol)
        close(contract(f, x, np.array([1, 1])), contract(f, x, 1), contract.atol)
        if contract.targeted:
            a, b = (np.asarray(contract(f, x, c)) for c in (1, 2))
            assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()

    def test_jit_is_eager(self, contract):
        f, x = tiny(), images(2, 8)
        want = jitted(contract)(f, x, jnp.array([1, 1]))
        close(contract(f, x), want, contract.atol)
        with jax.disable_jit():
            close(contract(f, x), want, contract.atol)

    def test_vmap_is_loop_is_batch(self, contract):
        f, x = tiny(), images(2, 8)
        batch = contract(f, x)
        close(jnp.concatenate([contract(f, x[i : i + 1]) for i in range(2)]), batch, contract.atol)
        close(jax.vmap(lambda image: contract(f, image[None])[0])(x), batch, contract.atol)

    def test_batch_size(self, contract):
        """The default is larger than all that is evaluated here."""
        if "batch_size" not in inspect.signature(contract.method).parameters:
            pytest.skip("evaluates the classifier once an image: no batch_size")
        f, x = tiny(), images(2, 8)
        want = contract(f, x)
        for batch_size in (None, 1, 5):
            close(contract(f, x, batch_size=batch_size), want, contract.atol)

    def test_gradient(self, contract):
        def total(f, x):
            out = contract(f, x)
            return (np.random.default_rng(5).standard_normal(out.shape).astype(np.float32) * out).sum()

        f, x = tiny(), images(2, 8)

        assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(total, argnums=(0, 1))(f, x)))
        if not contract.differentiable:
            return
        f, x = tiny(smooth=True), images()  # smooth but for ReLUs and extremes of maps, which are not near a kink here
        value, slope = jax.value_and_grad(total, argnums=1)(f, x)
        way = np.random.default_rng(6).standard_normal(x.shape).astype(np.float32)
        exact, off = float((slope * way).sum()), []
        # The larger step is off by curvature and kinks, the smaller by rounding: no step suits all methods.
        for step in (5e-4, 2.5e-4):
            # Parts of a sum that nearly cancel: the difference of maps, summed in float64.
            up, down = (np.asarray(contract(f, x + np.float32(s * step) * way), np.float64) for s in (1, -1))
            numeric = float((np.random.default_rng(5).standard_normal(up.shape) * (up - down)).sum()) / (2 * step)
            off.append(abs(numeric - exact) / (abs(numeric) + 0.01 * abs(float(value))))
        assert min(off) < 0.02

    def test_zero_image(self, contract):
        assert np.isfinite(contract(tiny(), jnp.zeros((2, 8, 8, 3)))).all()

    def test_broken_image(self, contract):
        """On a device nothing waits to see it: its map is NaN, and the others' are theirs. Or it is an error."""
        f, x = tiny(), images(2, 8)
        bad = x.at[0, 0, 0, 0].set(jnp.inf)
        out = np.asarray(contract(f, bad))
        assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()
        with js.config(check_values=True), pytest.raises(ValueError, match="1 NaN or infinite"):
            contract(f, bad)

    def test_bf16(self, contract):
        got = contract(tiny(dtype=jnp.bfloat16), images(2, 8, dtype=jnp.bfloat16))
        assert got.dtype == jnp.bfloat16
        got, want = (np.asarray(v, np.float64).ravel() for v in (got, contract(tiny(), images(2, 8))))
        assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) > contract.bf16

    def test_broken_weights_give_no_clean_map(self, contract):
        """A class that does not exist is found out only inside the program where its number is traced."""
        f, x = tiny(), images(2, 8)
        broken = dataclasses.replace(f, first=f.first.at[0, 0, 0, 0].set(jnp.nan))
        assert np.isnan(contract(broken, x)).all()
        if contract.targeted:
            out = np.asarray(jitted(contract)(f, x, jnp.array([1, 4])))
            assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()

    def test_numbers_of_numpy(self, contract):
        """Given as options they are numbers, and lists are tuples: the program is the same one."""
        f, x = tiny(), images(2, 8)
        want = contract(f, x)
        numpy = {int: np.int64, float: np.float32, tuple: list}
        defaults = {p.name: p.default for p in inspect.signature(contract.method).parameters.values()}
        options = {k: v for k, v in {**defaults, **contract.options}.items() if type(v) in numpy}
        # A float32 is not quite the number that was meant.
        options = {k: numpy[type(v)](v) for k, v in options.items()}
        got = contract(f, np.asarray(x), np.int64(1), **options)
        close(got, want, max(contract.atol, 1e-4))

    def test_one_trace_per_shape(self, contract):
        contract(tiny(), images(2, 8))
        before = Tiny.traces
        for seed in (2, 3):
            contract(tiny(seed), images(2, 8, seed=seed), seed)
        assert Tiny.traces == before
        jax.eval_shape(contract, tiny(), images(2, 10))
        assert Tiny.traces > before

    def test_bad_input(self, contract):
        f, x = tiny(), images(2, 8)
        cases = [
            (ValueError, "rank 4", lambda: contract(f, x[0])),
            (ValueError, "empty", lambda: contract(f, x[:0])),
            (TypeError, "floating", lambda: contract(f, (x * 255).astype(jnp.uint8))),
            (TypeError, "array", lambda: contract(f, "photo.jpg")),
            (ValueError, "NaN", lambda: contract(f, np.asarray(x.at[0, 0, 0, 0].set(jnp.nan)))),
            (ValueError, "0 to 3", lambda: contract(f, x, 4)),
            (ValueError, "0 to 3", lambda: contract(f, x, -1)),
            (ValueError, "one an image", lambda: contract(f, x, np.array([0, 1, 2]))),
            (ValueError, "class number", lambda: contract(f, x, "cat")),
            (TypeError, "integer", lambda: contract(f, x, 1.5)),
            (ValueError, "summing to 1", lambda: contract(f, x, np.array([0.0, 2.0, 0.0, 0.0]))),
            (TypeError, "callable", lambda: contract(None, x)),
            (ValueError, "logits", lambda: contract(lambda x: x, x)),
            (TypeError, "option", lambda: contract(f, x, no_such_option=1)),
        ]
        if "batch_size" in inspect.signature(contract.method).parameters:
            cases.append((ValueError, "more than 0", lambda: contract(f, x, batch_size=0)))
        for error, words, call in cases:
            with pytest.raises(error, match=words):
                call()
