"""Small random networks in many spellings, and what is known of their maps.

``draw(seed, kind)`` composes a network ``[n h w c] -> [n 4]`` of random operations. The seed fixes the function;
how it is *written* (a ReLU as ``maximum``, ``where`` or ``(y + |y|) / 2``, a variance in one pass or two) is picked by
``Network.spelled``. ``Network.relevant`` and ``Network.guided`` are the same function with other derivatives, which
know of no program: each operation says what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spellings as ways
from spellings import Spelling, Ways

# Derivatives that are maps.


class Relevance(Spelling):
    """Relevance for a derivative: LRP-0, convolutions by the z⁺ rule if asked, maxima to the winner.

    What is linear gives its inputs ``x ⊙ vjp(R / z)``; elementwise functions, normalisations and gates pass R on;
    constants take their part ``R b / (y + b)`` (``ignore``: nothing).
    """

    def __init__(self, plus: bool = False, ignore: bool = False):
        super().__init__()
        self.plus, self.ignore = plus, ignore

    def do(self, role: str, ways: Ways, *values: Any, linear: Ways | None = None) -> Any:
        back = {"linear": _linear, "move": _move, "maximum": _move}.get(role, _pass)
        return _routed(self.pick(ways), back, *values)

    def layer(self, kind: str, ways: Ways, x: Any, kernel: Any, behind: tuple[Any, ...] = ()) -> Any:
        run, scale, b = self.pick(ways), 1.0, 0.0
        if behind:
            scale, b = (1.0, behind[0]) if len(behind) == 1 else _folded(*behind)
        kernel = kernel * scale

        def plus(x):
            up, down = jnp.maximum, jnp.minimum
            return run(up(x, 0), up(kernel, 0)) + run(down(x, 0), down(kernel, 0))

        split = self.plus and kind == "convolution"
        linear = plus if split else lambda x: run(x, kernel)
        part = 0.0 if self.ignore else jnp.maximum(b, 0) if split else b

        def back(f: Callable, values: list[Any], r: Any) -> list[Any]:
            z, vjp = jax.vjp(linear, *values)
            return [values[0] * vjp(_over(r, z + part))[0]]

        return _routed(lambda x: run(x, kernel) + b, back, x)

    def behind(self, y: Any, *numbers: Any) -> Any:
        scale, b = (1.0, numbers[0]) if len(numbers) == 1 else _folded(*numbers)
        return _routed(lambda y: y * scale + b, _pass if self.ignore else _linear, y)


def _folded(mean: Any, var: Any, scale: Any, bias: Any) -> tuple[Any, Any]:
    scale = scale / jnp.sqrt(var + 1e-3)
    return scale, bias - mean * scale


def _over(r: Any, z: Any) -> Any:
    return jnp.where(z == 0, 0, r / jnp.where(z == 0, 1, z))


def _linear(f: Callable, values: list[Any], r: Any) -> list[Any]:
    z, vjp = jax.vjp(f, *values)
    return [v * part for v, part in zip(values, vjp(_over(r, z)))]


def _move(f: Callable, values: list[Any], r: Any) -> list[Any]:
    return list(jax.vjp(f, *values)[1](r))


def _pass(f: Callable, values: list[Any], r: Any) -> list[Any]:
    return [r, *map(jnp.zeros_like, values[1:])]


def _routed(f: Callable, back: Callable, *values: Any) -> Any:
    """``f(*values)``, whose derivative is ``back(f, values, cotangent)``."""
    routed = jax.custom_vjp(f)
    routed.defvjp(lambda *v: (f(*v), v), lambda v, r: tuple(back(f, list(v), r)))
    return routed(*values)


class Guided(Spelling):
    """The usual derivatives, but at ReLUs ``rule(y, cotangent)``."""

    def __init__(self, rule: Callable[[Any, Any], Any]):
        super().__init__()
        self.rule = rule

    def do(self, role: str, ways: Ways, *values: Any, linear: Ways | None = None) -> Any:
        if role != "relu":
            return super().do(role, ways, *values)
        return _routed(self.pick(ways), lambda f, v, r: [self.rule(v[0], r)], *values)


GUIDED = lambda y, r: jnp.where(y > 0, jnp.maximum(r, 0), 0)  # noqa: E731
DECONVNET = lambda y, r: jnp.maximum(r, 0)  # noqa: E731


# Operations: numbers, the shape (h, w, c) of the result, and what is done.


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """``apply(numbers, spelling, y)``.

    Attributes:
      text: what it does.
      shape: of its result.
      numbers: its constants.
      apply: the function.
      behind: what follows belongs to the layer that ends here: no bias or scale is to follow.
    """

    text: str
    shape: tuple[int, ...]
    numbers: tuple[np.ndarray, ...]
    apply: Callable[[Any, Spelling, Any], Any]
    behind: bool = False


def chain(ops: list[Op]) -> Op:
    """One after the other."""

    def apply(p, s, y):
        start = 0
        for op in ops:
            y = op.apply(p[start : start + len(op.numbers)], s, y)
            start += len(op.numbers)
        return y

    return Op(" > ".join(o.text for o in ops), ops[-1].shape, sum((o.numbers for o in ops), ()), apply)


class Drawer:
    """Draws operations."""

    def __init__(self, rng: np.random.Generator, kind: str):
        self.rng, self.kind = rng, kind
        self.layers, self.behind, self.bent, self.name = 0, False, False, ""
        self.zeros = False  # whether values may be zero exactly

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def normal(self, *shape: int, fan: int = 1, mean: float = 0.3) -> np.ndarray:
        return (self.rng.normal(size=shape) + mean) / np.sqrt(fan)

    def op(self, shape: tuple[int, ...], same: bool = False, depth: int = 0) -> Op:
        """Any operation on values of a shape; ``same`` for one that keeps it."""
        while True:
            name = self.pick(*FAMILIES[self.kind])
            if (name in NESTED and depth > 1) or (name in AFFINE and (self.behind or not self.layers)):
                continue
            if name == "relu" and self.bent and self.kind == "rectified":
                continue  # a ReLU of softplus is softplus
            if name == "leaky" and self.zeros and self.kind == "rectified":
                continue  # there its derivative is a matter of taste
            before = self.layers
            found = OPS[name](self, shape, depth) if name in NESTED else OPS[name](self, shape)
            if min(found.shape) > 0 and np.prod(found.shape) <= 400 and (found.shape == shape or not same):
                self.behind = found.behind or (self.behind and name == "movement")
                self.name = name
                self.zeros = name in ("relu", "layers") or (self.zeros and name in KEEP_ZEROS)
                self.bent = name in ("activation", "leaky") or (self.bent and name in POINTWISE)
                return found
            self.layers = before

    def branch(self, shape: tuple[int, ...], depth: int) -> Op:
        """One or two operations that keep the shape."""
        self.behind = False  # more than one looks at where it starts
        ops, mixes = [], self.kind != "rectified"  # y + relu(y) is 2 leaky_relu(y, .5), and no ReLU
        for _ in range(self.pick(1, 2)):
            ops.append(self.op(shape, True, depth + 1))
            mixes |= self.name not in POINTWISE
        while not mixes:
            ops.append(self.op(shape, True, depth + 1))
            mixes = self.name not in POINTWISE
        return chain(ops)


OPS: dict[str, Callable[..., Op]] = {}
AFFINE = ("scale", "shift", "batch_norm")
NESTED = ("residual", "concat")
KEEP_ZEROS = ("movement", "max_pool", "residual", "concat", "scale", "leaky", "modulus", "average_pool", "made_inside")
POINTWISE = ("relu", "leaky", "modulus", "activation", *AFFINE)


def op(f):
    OPS[f.__name__] = f
    return f


@op
def convolution(g: Drawer, shape):
    """Strides, dilation, groups, SAME and VALID; with nothing, a bias, or a batch normalisation behind it."""
    _h, _w, c = shape
    k, strides = g.pick((1, 1), (3, 3), (3, 3), (2, 3)), g.pick((1, 1), (1, 1), (1, 1), (2, 2))
    dilation = g.pick(1, 1, 1, 2) if strides == (1, 1) else 1
    padding, groups = g.pick("SAME", "SAME", "SAME", "VALID"), g.pick(1, 1, c)
    out = c if groups > 1 else g.pick(3, 4, 4)
    kernel = g.normal(*k, c // groups, out, fan=k[0] * k[1] * c // groups)
    behind: tuple = ()
    if g.kind != "linear" and g.rng.random() < 0.6:
        behind = (0.3 * g.normal(out, mean=0),) if g.pick(True, False) else normalisation(g, out)
    span = [(n - 1) * dilation + 1 for n in k]
    ends = [-(-n // t) if padding == "SAME" else (n - m) // t + 1 for n, t, m in zip(shape, strides, span)]
    forms = ways.convolutions(strides, padding, rhs_dilation=(dilation,) * 2, feature_group_count=groups)
    g.layers += 1
    name = {0: "conv", 1: "conv, bias", 4: "conv, batch norm"}[len(behind)]
    text = f"{name} {k} to {out} strides {strides} dilation {dilation} groups {groups} {padding}"
    apply = lambda p, s, y: s.layer("convolution", forms, y, p[0], p[1:])  # noqa: E731
    return Op(text, (*ends, out), (kernel, *behind), apply, True)


def normalisation(g: Drawer, c: int) -> tuple[np.ndarray, ...]:
    """Mean, variance, scale and bias of a batch normalisation."""
    return 0.3 * g.normal(c, mean=0), g.rng.uniform(0.5, 2, c), g.normal(c, mean=1), 0.3 * g.normal(c, mean=0)


@op
def transposed(g: Drawer, shape):
    h, w, c = shape
    out = g.pick(3, 4)
    apply = lambda p, s, y: s.layer("convolution", ways.TRANSPOSED, y, p[0])  # noqa: E731
    g.layers += 1
    return Op(f"transposed conv to {out}", (2 * h, 2 * w, out), (g.normal(2, 2, c, out, fan=2 * c),), apply, True)


@op
def made_inside(g: Drawer, shape):
    """A convolution whose kernel is drawn inside the function."""
    seed, c = int(g.rng.integers(1000)), shape[2]

    def made(y):
        kernel = jax.random.normal(jax.random.key(seed), (3, 3, c, c), y.dtype) / (3 * np.sqrt(c))
        return ways.conv(y, kernel)

    g.layers += 1
    return Op(
        "conv with a kernel made inside", shape, (), lambda p, s, y: s.do("linear", {"made inside": made}, y), True
    )


@op
def dense(g: Drawer, shape):
    """Over channels, or over rows (as mixers do)."""
    h, w, c = shape
    rows = g.rng.random() < 0.3
    size, out = (h, h) if rows else (c, g.pick(3, 4, 4))
    forms = ways.ROWS if rows else ways.CHANNELS
    g.layers += 1
    apply = lambda p, s, y: s.layer("dense", forms, y, p[0])  # noqa: E731
    after = (h, w, c) if rows else (h, w, out)
    return Op(f"dense over {'rows' if rows else 'channels'} to {out}", after, (g.normal(size, out, fan=size),), apply)


@op
def layers(g: Drawer, shape):
    """Two layers with stacked weights, in a loop of any sort."""
    c, skip = shape[2], g.pick(False, True)

    def apply(p, s, y):
        relu = ways.RECTIFIERS if s.rng is None else {"": s.pick(ways.RECTIFIERS)}

        def step(y, k):
            z = s.do("relu", relu, s.layer("dense", {"": jnp.matmul}, y, k))
            return s.do("linear", {"": jnp.add}, y, z) if skip else z

        def branches(y):
            return jax.lax.cond(y.sum() > 1e9, lambda y: step(y, p[0][1]), lambda y: step(y, p[0][0]), y)

        forms = {
            "python": lambda y: step(step(y, p[0][0]), p[0][1]),
            "scan": lambda y: jax.lax.scan(lambda y, k: (step(y, k), None), y, p[0])[0],
            "scan, reversed": lambda y: jax.lax.scan(lambda y, k: (step(y, k), None), y, p[0][::-1], reverse=True)[0],
            "scan, stacked": lambda y: jax.lax.scan(lambda y, k: (step(y, k),) * 2, y, p[0])[1][-1],
            "fori_loop": lambda y: jax.lax.fori_loop(0, 2, lambda i, y: step(y, p[0][i]), y),
            "checkpoint": jax.checkpoint(lambda y: step(step(y, p[0][0]), p[0][1])),
            "cond": lambda y: step(branches(y), p[0][1]),
            "jit": jax.jit(lambda y: step(jax.jit(step)(y, p[0][0]), p[0][1])),
        }
        return s.pick(forms)(y)

    g.layers += 2
    return Op(f"two dense layers with relu{' and skips' if skip else ''}", shape, (g.normal(2, c, c, fan=c),), apply)


POOLS = [((2, 2), (2, 2), "VALID"), ((3, 3), (1, 1), "SAME"), ((3, 3), (2, 2), "SAME"), ((2, 3), (1, 1), "VALID")]


def pooled(g: Drawer, shape, name: str, role: str, make: Callable) -> Op:
    k, strides, padding = g.pick(*POOLS)
    ends = [-(-n // t) if padding == "SAME" else (n - m) // t + 1 for n, t, m in zip(shape, strides, k)]
    forms, other = make(k, strides, padding)
    apply = lambda p, s, y: s.do(role, forms, y, linear=other)  # noqa: E731
    return Op(f"{name} {k} strides {strides} {padding}", (*ends, shape[2]), (), apply)


@op
def average_pool(g: Drawer, shape):
    return pooled(g, shape, "average", "linear", ways.averages)


@op
def max_pool(g: Drawer, shape):
    return pooled(g, shape, "max", "maximum", lambda *a: (ways.maximal(*a), {}))


@op
def relu(g: Drawer, shape):
    return Op("relu", shape, (), lambda p, s, y: s.do("relu", ways.RECTIFIERS, y))


@op
def leaky(g: Drawer, shape):
    return Op("leaky relu", shape, (), lambda p, s, y: s.do("pass", ways.LEAKY, y))


@op
def modulus(g: Drawer, shape):
    return Op("abs", shape, (), lambda p, s, y: s.do("pass", ways.MODULI, y))


@op
def activation(g: Drawer, shape):
    # In front of these a shift makes them a ReLU6 of a layer with another bias, or another scale.
    name = g.pick(*(n for n in ways.SMOOTH if g.kind != "rectified" or n not in ("hard_sigmoid", "relu6")))
    return Op(name, shape, (), lambda p, s, y: s.do("pass", ways.SMOOTH[name], y))


@op
def residual(g: Drawer, shape, depth):
    """A branch, and what it starts from: their sum, difference, mean, or the larger of both."""
    branch = g.branch(shape, depth)
    name = g.pick("y + b", "y + b", "y - b", "mean", "maximum")
    forms, other = {
        "y + b": (ways.SUMS, ways.SUMS_TOO),
        "y - b": (ways.DIFFERENCES, ways.DIFFERENCES_TOO),
        "mean": (ways.MEANS, ways.MEANS_TOO),
        "maximum": (ways.MAXIMA, {}),
    }[name]
    role = "maximum" if name == "maximum" else "linear"
    apply = lambda p, s, y: s.do(role, forms, y, branch.apply(p, s, y), linear=other)  # noqa: E731
    return Op(f"{name} [b = {branch.text}]", shape, branch.numbers, apply)


@op
def concat(g: Drawer, shape, depth):
    branch, axis = g.branch(shape, depth), g.pick(3, 1, 2)
    forms = {
        "concatenate": lambda y, b: jnp.concatenate([y, b], axis),
        "append": lambda y, b: jnp.append(y, b, axis),
    }
    after = tuple(2 * n if a == axis else n for a, n in enumerate(shape, 1))
    apply = lambda p, s, y: s.do("move", forms, y, branch.apply(p, s, y))  # noqa: E731
    return Op(f"concat axis {axis} [{branch.text}]", after, branch.numbers, apply)


@op
def mixing(g: Drawer, shape):
    """A value and its own pool or mean, added or taken away; nothing is divided."""
    axes = g.pick((1, 2), (3,), (1, 2, 3), (1,), "pool", "pool")
    sign, first = g.pick(1.0, -1.0, 0.5), g.pick(True, False)
    means = {
        "mean": lambda y: y.mean(axes, keepdims=True),
        "sum / n": lambda y: y.sum(axes, keepdims=True) / np.prod([y.shape[a] for a in axes]),
        "expand_dims": lambda y: jnp.expand_dims(y.mean(axes), axes),
        "broadcast": lambda y: jnp.broadcast_to(y.mean(axes, keepdims=True), y.shape),
    }
    forms = ways.averages((3, 3), (1, 1), "SAME")[0] if axes == "pool" else means

    def apply(p, s, y):
        pool = s.pick(*ways.averages((3, 3), (1, 1), "SAME")) if axes == "pool" and s.linear else s.pick(forms)
        sums = {
            1.0: (lambda y: y + pool(y)) if first else (lambda y: pool(y) + y),
            -1.0: (lambda y: y - pool(y)) if first else (lambda y: pool(y) - y),
            0.5: (lambda y: y + 0.5 * pool(y)) if first else (lambda y: pool(y) / 2 + y),
        }
        return s.do("linear", {"": sums[sign]}, y)

    a, b = ("y", f"{sign} m") if first else (f"{sign} m", "y")
    return Op(f"{a} + {b} [m = {'pool' if axes == 'pool' else f'mean over {axes}'}]", shape, (), apply)


@op
def movement(g: Drawer, shape):
    h, w, c = shape
    order, rows = g.rng.permutation(c), g.rng.integers(0, h, h)
    found = ways.movements(h, w, c, order, rows, g.pick(1, 2, -1), g.pick(1, 2, 3))
    name = g.pick(*found)
    after, forms = found[name]
    return Op(name, after, (), lambda p, s, y: s.do("move", forms, y))


@op
def cumulated(g: Drawer, shape):
    axis = g.pick(1, 2)
    n = shape[axis - 1]
    forms = {
        "cumsum": lambda y: jnp.cumsum(y, axis) / n,
        "backwards": lambda y: jnp.flip(jax.lax.cumsum(jnp.flip(y, axis), axis, reverse=True), axis) / n,
    }
    return Op(f"cumsum {axis}", shape, (), lambda p, s, y: s.do("linear", forms, y))


@op
def scale(g: Drawer, shape):
    """By constants of either sign."""
    return Op("scale", shape, (g.normal(shape[2]),), lambda p, s, y: s.do("pass", ways.SCALES, y, p[0]))


@op
def shift(g: Drawer, shape):
    """A bias that follows no layer directly."""
    return Op("shift", shape, (0.3 * g.normal(shape[2], mean=0),), lambda p, s, y: s.behind(y, *p))


@op
def batch_norm(g: Drawer, shape):
    """One that follows no layer directly."""
    return Op("batch norm", shape, normalisation(g, shape[2]), lambda p, s, y: s.behind(y, *p))


@op
def norm(g: Drawer, shape):
    c = shape[2]
    name = g.pick("layer", "layer over all", "instance", "group", "rms", "rms over all")
    groups = 2 if name == "group" and c % 2 == 0 else 1
    axes = {"layer": (3,), "rms": (3,), "instance": (1, 2)}.get(name, (1, 2, 3) if groups == 1 else (1, 2, 4))
    if (axes == (3,) and c < 3) or (axes == (1, 2) and shape[0] * shape[1] < 3):
        axes = (1, 2, 3)  # two numbers, normalised, are +1 and -1
    forms, scaled = ways.norms(axes, groups, "rms" not in name), g.pick(True, False)

    def apply(p, s, y):
        y = s.do("pass", forms, y)
        return s.do("pass", ways.SCALES, y, p[0]) if scaled else y

    numbers = (g.normal(c, mean=1),) if scaled else ()
    return Op(f"{name} norm over {axes}{', scaled' if scaled else ''}", shape, numbers, apply)


@op
def gate(g: Drawer, shape):
    """Squeeze and excitation."""
    c = shape[2]
    forms = {"None": lambda z: z[:, None, None], "reshape": lambda z: z.reshape(-1, 1, 1, c)}

    def apply(p, s, y):
        z = s.pick(forms)(jax.nn.sigmoid(y.mean((1, 2)) @ p[0]))
        return s.do("gate", ways.GATES, y, z)

    return Op("gate", shape, (g.normal(c, c, fan=c),), apply)


LINEAR = ["convolution"] * 4 + ["dense", "average_pool", "residual", "concat", "mixing"]
LINEAR += ["movement", "movement", "cumulated", "made_inside", "scale", "transposed"]
PIECES = ["relu", "relu", "relu", "leaky", "modulus", "max_pool", "layers"]
FAMILIES = {
    "linear": LINEAR + PIECES,
    "biased": LINEAR + PIECES + ["shift", "batch_norm"] * 2,
    "smooth": LINEAR + ["activation", "norm"] * 4 + ["gate", "gate", "relu", "layers", "max_pool", "batch_norm"],
    "rectified": LINEAR + ["relu", "norm"] * 3 + ["activation", "leaky", "layers", "max_pool", "batch_norm"],
}


def head(g: Drawer, shape) -> list[Op]:
    """To four logits."""
    h, w, c = shape
    name = g.pick("mean", "max", "row")
    forms, role = {
        "mean": (
            {
                "mean": lambda y: y.mean((1, 2)),
                "sum / n": lambda y: y.sum((1, 2)) / (h * w),
                "twice": lambda y: y.mean(1).mean(1),
                "reshape": lambda y: y.reshape(-1, h * w, c).mean(1),
            },
            "linear",
        ),
        "max": (
            {
                "reduce_window": lambda y: jax.lax.reduce_window(
                    y, -jnp.inf, jax.lax.max, (1, h, w, 1), (1, 1, 1, 1), "VALID"
                ).squeeze((1, 2)),
                "max": lambda y: y.max((1, 2)),
            },
            "maximum",
        ),
        "row": (
            {"reshape": lambda y: y.reshape(-1, h * w * c), "ravel": jax.vmap(jnp.ravel)},
            "move",
        ),
    }[name]
    inside = lambda y: (jnp.ones((1, h * w), y.dtype) / (h * w) @ y.reshape(-1, h * w, c))[:, 0]  # noqa: E731
    other = {"matrix made inside": inside} if name == "mean" else None
    size = h * w * c if name == "row" else c
    numbers = (g.normal(size, 4, fan=size),)
    if g.kind != "linear" and g.pick(True, False):
        numbers += (0.3 * g.normal(4, mean=0),)
    last = g.pick("", "", "softmax", "log_softmax") if g.kind == "smooth" else ""
    ends = {"softmax": ways.SOFTMAX, "log_softmax": ways.LOG_SOFTMAX}

    def pool(p, s, y):
        return s.do(role, forms, y, linear=other)

    def classify(p, s, y):
        return s.layer("dense", ways.VECTORS, y, p[0], p[1:])

    ops = [Op(name, (size,), (), pool), Op("dense" + ", bias" * (len(numbers) - 1), (4,), numbers, classify)]
    return ops + ([Op(last, (4,), (), lambda p, s, y: s.pick(ends[last])(y))] if last else [])


# Networks.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A random network, written in one way: images ``[n h w c]`` to logits ``[n 4]``."""

    numbers: tuple[Any, ...]
    op: Op = dataclasses.field(metadata={"static": True})
    make: Callable[[], Spelling] = dataclasses.field(default=Spelling, metadata={"static": True})

    def __call__(self, x):
        return self.op.apply([jnp.asarray(p, x.dtype) for p in self.numbers], self.make(), x)

    def spelled(self, seed: int, linear: bool = False) -> Network:
        """Written in another way."""
        return dataclasses.replace(self, make=lambda: Spelling(seed, linear))

    def relevant(self, **options: bool) -> Network:
        """With relevance for a derivative; see ``Relevance``."""
        return dataclasses.replace(self, make=lambda: Relevance(**options))

    def guided(self, rule: Callable[[Any, Any], Any]) -> Network:
        """With the derivatives of guided back-propagation."""
        return dataclasses.replace(self, make=lambda: Guided(rule))

    def ways(self, x: Any) -> str:
        """How it is written."""
        spelling = self.make()
        jax.eval_shape(dataclasses.replace(self, make=lambda: spelling), x)
        return ", ".join(filter(None, spelling.picked))


def compose(g: Drawer, shape: tuple[int, ...], count: int) -> tuple[Network, str]:
    """A network of so many operations and a head."""
    ops, now = [], shape
    for _ in range(count):
        ops.append(g.op(now))
        now = ops[-1].shape
    whole = chain(ops + head(g, now))
    return Network(whole.numbers, whole), whole.text


def draw(seed: int, kind: str) -> tuple[Network, np.ndarray, str]:
    """A random network, two images for it, and what it is. Few shapes: what JAX traces once it need not trace again."""
    rng = np.random.default_rng([list(FAMILIES).index(kind), seed])
    shape = (6, 5, 3)
    x = rng.normal(size=(2, *shape)) if rng.random() < 0.7 else rng.uniform(size=(2, *shape))
    net, text = compose(Drawer(rng, kind), shape, int(rng.integers(2, 5)))
    return net, x, f"draw({seed}, {kind!r}): {text}"
