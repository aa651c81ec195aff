"""One iteration of Algorithm 2, and the loops around it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal._checks import message
from jaxsal.features._basis import against
from jaxsal.features._pytree import altered
from jaxsal.paths._path import Status, saturation
from jaxsal.paths._projection import pinch, project, saturate
from jaxsal.paths._scores import SIGNS, branches, closer, slopes
from jaxsal.paths.settings import Settings, at, is_zero

RUNNING = -1
MOST_DOUBLINGS = 6  # of a step, to make up for what its projection takes away


class State(NamedTuple):
    """What an iteration leaves to the next. The first axis of everything is that of the images.

    Attributes:
      paths: ``[n paths t *mask]``.
      mean: that of the iterations' paths so far, if it is the answer, else None.
      memory: of the optimizer.
      status: a ``Status`` an image, or ``RUNNING``.
      iterations: steps taken.
    """

    paths: Any
    mean: Any
    memory: Any
    status: Any
    iterations: Any

    @property
    def answer(self) -> Any:
        """The paths found."""
        return self.paths if self.mean is None else self.mean


@dataclasses.dataclass(frozen=True)
class Problem:
    """What does not change from iteration to iteration.

    Attributes:
      f: classifier.
      basis: of the images.
      score: F, settled.
      kind: which path score.
      settings: the numbers, settled.
      cells: mask cells a pixel, along rows and columns, or None if masks are no pictures.
      baselines: images to draw baselines from, or None.
      key: randomness.
      batch_size: evaluations in flight.
    """

    f: Any
    basis: Any
    score: Any
    kind: str
    settings: Settings
    cells: tuple[float, float] | None
    baselines: Any
    key: Any
    batch_size: int | None


def start(problem: Problem, paths: Any) -> State:
    """The state before the first iteration; where all that can be ablated changes nothing, there will be none."""
    memory = () if problem.settings.optimizer is None else jax.vmap(problem.settings.optimizer.init)(paths)
    image, ablated = (problem.basis(jnp.full_like(paths[:, 0, 0], end)) for end in (0, 1))
    inner = tuple(range(1, image.ndim))
    # A blurred plain image differs by rounding, which scaled up would look like a gradient.
    rounding = max(1e-4, 2 * float(jnp.finfo(image.dtype).eps))
    same = jnp.abs(ablated - image).max(inner) <= rounding * jnp.abs(image).max(inner)
    status = jnp.where(same, Status.NO_GRADIENT, RUNNING)
    mean = paths if problem.settings.average else None
    return State(paths, mean, memory, status, jnp.zeros_like(status))


def by_scan(problem: Problem, state: State) -> State:
    """All iterations in a loop of fixed length: reverse-differentiable, each recomputed when it is."""

    def body(state: State, i: Any) -> tuple[State, None]:
        done = (state.status != RUNNING).all()
        return jax.lax.cond(done, lambda s: s, lambda s: iterate(problem, s, i), state), None

    return jax.lax.scan(jax.checkpoint(body), state, jnp.arange(problem.settings.num_iterations, dtype=jnp.int32))[0]


def by_while(problem: Problem, state: State) -> State:
    """Iterations until every image is done."""

    def running(carry: Any) -> Any:
        return (carry[0].status == RUNNING).any()

    return jax.lax.while_loop(running, lambda c: (iterate(problem, c[0], c[1]), c[1] + 1), (state, 0))[0]


LOOPS = {"scan": by_scan, "while": by_while}


def iterate(problem: Problem, state: State, i: Any) -> State:
    """One step up, the nudges, and back to the ablation paths; images that are done stay as they are."""
    settings, weights = problem.settings, problem.basis.weights
    active = state.status == RUNNING
    gradient, finite = _gradient(problem, state.paths, active, i)
    flat = (jnp.abs(gradient).max(tuple(range(1, gradient.ndim))) == 0) & (i == 0)
    change, memory = _step(problem, gradient, state, i)
    projected = _arrive(problem, state.paths + change, i)
    if settings.normalize == "performed":
        projected = _performed(problem, state.paths, change, projected, i)

    goes = active & finite & ~flat
    keep = _lanes(goes)
    paths = keep(projected, state.paths)
    memory = jax.tree.map(keep, memory, state.memory)
    mean = state.mean
    if mean is not None:
        taken = state.iterations.reshape(-1, *[1] * (paths.ndim - 1))
        mean = keep(mean + (projected - mean) / (taken + 1), mean)
    full = jax.vmap(saturation, in_axes=(1, None), out_axes=1)(paths, weights).min(1)
    count, goal = i + 1, settings.saturation_goal
    last = Status.COMPLETED if goal is None else Status.ITERATION_LIMIT
    status = jnp.where(count >= settings.num_iterations, last, RUNNING)
    if goal is not None:
        status = jnp.where((full >= goal) & (count >= settings.min_iterations), Status.SATURATED, status)
    status = jnp.where(flat, Status.NO_GRADIENT, status)
    status = jnp.where(finite, status, Status.NON_FINITE)
    return State(paths, mean, memory, jnp.where(active, status, state.status), state.iterations + goes)


def _arrive(problem: Problem, paths: Any, i: Any) -> Any:
    """The ablation paths where a step that leads to ``paths`` ends."""
    to = jax.vmap(
        lambda p: project(p, weights=problem.basis.weights, monotone=problem.settings.monotone), in_axes=1, out_axes=1
    )
    return to(_nudged(problem, paths, i))


def _performed(problem: Problem, paths: Any, change: Any, projected: Any, i: Any) -> Any:
    """Paths that are off the old ones by ``step``, not more, and less only where no longer step gets farther.

    The step is doubled until what is left of it is as large as it should be, and what it is too large it goes back:
    ablation paths are a convex set, so that what lies between two of them is one too.
    """
    goal = at(problem.settings.step, i).astype(paths.dtype)

    def size(new: Any) -> Any:
        return jnp.abs(new - paths).max(tuple(range(2, paths.ndim)), keepdims=True)

    def longer(found: Any, doublings: Any) -> tuple[Any, None]:
        # Where all are long enough, nothing is projected.
        again = jax.lax.cond(
            (size(found) < goal).any(), lambda: _arrive(problem, paths + 2**doublings * change, i), lambda: found
        )
        return jnp.where((size(found) < goal) & (size(again) > size(found)), again, found), None

    doublings = jnp.arange(1, MOST_DOUBLINGS + 1, dtype=paths.dtype)
    found = jax.lax.scan(longer, projected, doublings)[0]
    length = size(found)
    return paths + jnp.minimum(goal / jnp.where(length > 0, length, 1), 1) * (found - paths)


def _lanes(which: Any) -> Any:
    """Function: (new, old) -> new where ``which[n]``, else old."""

    def choose(new: Any, old: Any) -> Any:
        return jnp.where(which.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return choose


def _gradient(problem: Problem, paths: Any, active: Any, i: Any) -> tuple[Any, Any]:
    """The objective's gradient by the paths, and whether all of an image's numbers are finite (others get zeros)."""
    found, pull = jax.vjp(lambda p: branches(problem.kind, p), paths)
    masks = found.reshape(found.shape[0], -1, *paths.shape[3:])
    signs = jnp.repeat(jnp.asarray(SIGNS[problem.kind]), paths.shape[2])
    got = slopes(
        problem.f, problem.basis, masks, signs, problem.score, problem.settings.objective, problem.batch_size, active,
        _random(problem, masks.shape[1:], i),
    )  # fmt: skip
    gradient = pull(got.slope.reshape(found.shape))[0] + closer(
        paths, problem.basis.weights, problem.settings.distance_penalty
    )
    finite = jnp.isfinite(got.value).all(1) & jnp.isfinite(gradient).all(tuple(range(1, gradient.ndim)))
    return _lanes(finite)(gradient, jnp.zeros_like(gradient)), finite


def _random(problem: Problem, shape: tuple[int, ...], i: Any) -> Any:
    """What is drawn anew for the evaluations of each iteration; all images share the draws (thesis, §2.4.3)."""
    if not (problem.settings.collapse or problem.settings.jitter or problem.baselines is not None):
        return None
    threshold_key, baseline_key, jitter_key = jax.random.split(jax.random.fold_in(problem.key, 2 * i), 3)
    most = problem.settings.jitter or 0
    shifts = jax.random.randint(jitter_key, (*shape[:1], 2), -most, most + 1, jnp.int32)
    fine = problem.basis.finest
    thresholds = jax.random.uniform(threshold_key, (*shape[:1], *fine.mask_shape), jnp.float32)
    which = None
    if problem.baselines is not None:
        which = jax.random.randint(baseline_key, shape[:1], 0, problem.baselines.shape[0], jnp.int32)

    def see(basis: Any, mask: Any, step: Any) -> Any:
        if problem.settings.collapse:
            # A mask on a grid is drawn where it is seen, pixel by pixel: drawn on the grid, it would be blended again.
            if basis.mask_shape != fine.mask_shape:
                basis, mask = basis.finest, basis.heatmap(mask)
            binary = (thresholds[step].astype(mask.dtype) < mask).astype(mask.dtype)
            mask = binary + (mask - jax.lax.stop_gradient(mask))
        if which is not None:
            basis = with_baseline(basis, problem.baselines[which[step]])
        seen = basis(mask)
        return jax.vmap(shifted)(seen, shifts[step]) if problem.settings.jitter else seen

    return see


def shifted(image: Any, shift: Any) -> Any:
    """An image ``[h w c]`` moved by ``shift`` pixels (down, right), its border pixels drawn out to fill the gap."""
    rows, columns = (jnp.clip(jnp.arange(n, dtype=jnp.int32) - by, 0, n - 1) for n, by in zip(image.shape[:2], shift))
    return image[rows[:, None], columns]


def with_baseline(basis: Any, images: Any) -> Any:
    """The basis with other images in place of its baseline.

    Raises:
      ValueError: a basis that has no baseline to replace.
    """
    if "baseline" not in {field.name for field in dataclasses.fields(basis)}:
        raise ValueError(
            message("basis with baselines", type(basis).__name__, "one against a baseline, such as Pixels")
        )
    return altered(basis, baseline=against(basis.x, images))


def _step(problem: Problem, gradient: Any, state: State, i: Any) -> tuple[Any, Any]:
    """The change of the paths, and the optimizer's memory."""
    settings, weights = problem.settings, problem.basis.weights[:, None, None]
    inner = tuple(range(3, gradient.ndim))
    gradient = steepest(gradient, weights, settings.metric, settings.zero_mass, inner)
    gradient = _blurred(problem, gradient, settings.gradient_sigma, i)
    memory = state.memory
    if problem.settings.optimizer is not None:
        # Optimizers descend: they are shown the slope of what falls as the score rises.
        change, memory = jax.vmap(problem.settings.optimizer.update)(-gradient, memory, state.paths)
    else:
        change = gradient
    step = at(settings.step, i)
    if settings.normalize:
        largest = jnp.abs(change).max((2, *inner), keepdims=True)
        change = change / jnp.where(largest > 0, largest, 1)
    return step * change, memory


def steepest(slope: Any, weights: Any, metric: str, zero_mass: bool, inner: tuple[int, ...]) -> Any:
    """The direction in which a score with these slopes rises fastest, by the metric Σ_j m_j a_j b_j.

    m = 1 ("euclidean") or m = w over the mean weight ("mass"), in which a light feature moves as easily as a heavy one.
    With ``zero_mass``, of the directions that leave Σ_j w_j φ_j as it is: what the mass's own gradient, w/m, has in it
    is taken out.
    """
    some = weights > 0
    middle = weights.sum(inner, keepdims=True) / some.sum(inner, keepdims=True).astype(weights.dtype)
    by = jnp.where(some, weights, middle) / middle if metric == "mass" else jnp.ones_like(weights)
    rise = jnp.where(some, slope, 0) / by if metric == "mass" else slope
    if zero_mass:
        up = weights / by
        rise = rise - (rise * weights).sum(inner, keepdims=True) / (up * weights).sum(inner, keepdims=True) * up
    return rise


def _nudged(problem: Problem, paths: Any, i: Any) -> Any:
    """Noise, blur, saturation, and the pinch."""
    settings = problem.settings
    if not is_zero(problem.settings.disturbance):
        key = jax.random.fold_in(problem.key, 2 * i + 1)
        paths = paths + at(problem.settings.disturbance, i) * jax.random.normal(key, paths.shape[1:], jnp.float32)
    push = (lambda p: p) if is_zero(settings.saturation) else lambda p: saturate(p, at(settings.saturation, i))
    if settings.saturate_first:
        paths = _blurred(problem, push(paths), settings.blur_sigma, i)
    else:
        paths = push(_blurred(problem, paths, settings.blur_sigma, i))
    if problem.kind == "straddle" and not is_zero(settings.pinch):
        retaining, dissipating = paths[:, 0], paths[:, 1]
        paths = jnp.stack([retaining, pinch(retaining, dissipating, at(settings.pinch, i))], axis=1)
    return paths


def _blurred(problem: Problem, masks: Any, sigma: Any, i: Any) -> Any:
    """Masks ``[n paths t *mask]`` blurred, if they are pictures."""
    if problem.cells is None or is_zero(sigma):
        return masks
    mirrored = problem.settings.border == "mirror"
    rows, columns = (
        gaussian(size, at(sigma, i) * cells, mirrored).astype(masks.dtype)
        for size, cells in zip(masks.shape[-2:], problem.cells)
    )
    # Unless mirrored, masks are outside of the image as they are on average.
    level = 0 if mirrored else masks.mean((-2, -1), keepdims=True)
    return level + jnp.einsum("ij,...jk,lk->...il", rows, masks - level, columns, precision="highest")


def gaussian(side: int, sigma: Any, mirrored: bool) -> jax.Array:
    """The matrix that convolves a signal with a Gaussian of ``sigma`` cells; outside it is mirrored, or zero.

    The Gaussian is sampled (Eq. 2.25) and adds to one, so that it is nowhere negative, however narrow: one that is
    exact in its frequencies rings where it is narrower than a cell.
    """
    # Wider than two sides, all is the mean already.
    width = jnp.clip(sigma, 1e-3, 2 * side) if mirrored else jnp.maximum(sigma, 1e-3)
    weight = lambda distance: jnp.exp(-0.5 * (distance / width) ** 2)  # noqa: E731
    index = jnp.arange(side, dtype=jnp.float32)
    apart, about = index[:, None] - index[None], index[:, None] + index[None] + 1
    if not mirrored:
        return weight(apart) / weight(jnp.arange(-side, side + 1, dtype=jnp.float32)).sum()
    # The signal and its mirror image repeat every two sides.
    periods = 2 * side * jnp.arange(-5, 6, dtype=jnp.float32)[:, None, None]
    total = (weight(apart[None] + periods) + weight(about[None] + periods)).sum(0)
    return total / total.sum(1, keepdims=True)
