"""Taps: list, capture, replace and split at the named arrays inside any JAX function.

A tap is an equation of the primitive behind ``jax.ad_checkpoint.checkpoint_name``: it survives ``jit``, ``vmap`` and
``grad``, costs nothing, and needs no hook and no edit of a model (adapters tap foreign models by themselves).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxsal import _compat as c
from jaxsal._checks import message, nearest
from jaxsal.tracing._once import program
from jaxsal.tracing._rewrite import Path, Values, interpret


def tap(x: Any, name: str) -> Any:
    """Name an array inside a function, for ``taps``, ``capture``, ``replace`` and ``split``.

    The value passes unchanged and unhindered through every JAX transformation.

    Args:
      x: an array, or a pytree of them (each leaf gets the name).
      name: anything; dots show nesting by convention (``"layer4.0.relu1"``).

    Returns:
      ``x``.
    """
    return checkpoint_name(x, name)


@dataclasses.dataclass(frozen=True)
class _Tap:
    name: str
    path: Path
    shape: jax.ShapeDtypeStruct
    readable: bool


def _find(jaxpr: c.Jaxpr, path: Path = (), lead: tuple[int, ...] = (), readable: bool = True) -> list[_Tap]:
    """Every tap in program order, with repeated names indexed: a, a:1, a:2."""

    def walk(jaxpr: c.Jaxpr, path: Path, lead: tuple[int, ...], readable: bool) -> Iterable[_Tap]:
        for index, eqn in enumerate(jaxpr.eqns):
            here = (*path, index)
            if eqn.primitive is c.name_p:
                aval: Any = eqn.outvars[0].aval
                shape = jax.ShapeDtypeStruct((*lead, *aval.shape), aval.dtype)
                yield _Tap(eqn.params["name"], here, shape, readable)
            deeper = (*lead, eqn.params["length"]) if eqn.primitive is c.scan_p else lead
            for key, sub in c.subjaxprs(eqn):
                yield from walk(sub, (*here, key), deeper, readable and eqn.primitive is not c.while_p)

    seen: dict[str, int] = {}
    found = []
    for t in walk(jaxpr, path, lead, readable):
        count = seen.get(t.name, 0)
        seen[t.name] = count + 1
        found.append(dataclasses.replace(t, name=f"{t.name}:{count}") if count else t)
    return found


@dataclasses.dataclass
class _TapVisitor:
    """Emits the values at ``read``, puts fed values in place of those at ``write``, adds fed values at ``add``."""

    read: frozenset[Path]
    write: frozenset[Path]
    add: frozenset[Path]
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        return any(p[: len(path)] == path for p in self.read | self.write | self.add)

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if path not in self.read | self.write | self.add:
            return None
        value = values[0]
        if path in self.write:
            value = fed[path]
        if path in self.add:
            value = value + fed[path]
        self.changes += path in fed
        (out,) = c.bind(eqn, [value])
        return [out], {path: out} if path in self.read else {}


def _lookup(found: list[_Tap], names: Iterable[str]) -> dict[str, _Tap]:
    table = {t.name: t for t in found}
    for name in names:
        if name not in table:
            hint = "" if table else "Name arrays with js.tap, or wrap the model with js.classifiers.wrap."
            near = ", ".join(nearest(name, table, count=12)) or "no taps at all in this function"
            more = f" and {len(table) - 12} more (js.taps lists them)" if len(table) > 12 else ""
            raise ValueError(message("unknown layer", repr(name), f"one of: {near}{more}", hint))
        if not table[name].readable:
            raise ValueError(message(f"layer {name!r}", "a tap inside a while loop", "one outside, or in a scan"))
    return {name: table[name] for name in names}


def tapped(
    f: Callable,
    read: Sequence[str] = (),
    write: Mapping[str, Any] | None = None,
    add: Mapping[str, Any] | None = None,
) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The function behind ``capture`` and ``replace``: read, overwrite and perturb taps in one evaluation.

    Args:
      f: any JAX function.
      read: names of taps to return.
      write: values to put in place of taps.
      add: values to add at taps (what Grad-CAM differentiates by: one forward pass gives value and gradient).

    Returns:
      Function with the arguments of ``f``, giving its output and the read values by name, after writing and adding.

    Raises:
      ValueError: unknown names (the message lists what there is, nearest first); a fed value of another shape.
    """
    write, add = dict(write or {}), dict(add or {})

    def run(*args: Any) -> tuple[Any, dict[str, Any]]:
        closed, tree = program(f, *args)
        table = _lookup(_find(closed.jaxpr), [*read, *write, *add])
        fed: Values = {}
        for name, value in [*write.items(), *add.items()]:
            shape, value = table[name].shape, jnp.asarray(value)
            if value.shape != shape.shape:
                raise ValueError(message(f"value for layer {name!r}", f"shape {value.shape}", f"{shape.shape}"))
            fed[table[name].path] = value.astype(shape.dtype)
        at = [frozenset(table[n].path for n in names) for names in (read, write, add)]
        visitor = _TapVisitor(read=at[0], write=at[1], add=at[2])
        outs, emitted = interpret(closed.jaxpr, closed.consts, jax.tree.leaves(args), visitor, fed)
        return jax.tree.unflatten(tree, outs), {name: emitted[table[name].path] for name in read}

    return run


def taps(f: Callable, *args: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """List what there is to see inside ``f``: every tap, in the order of evaluation.

    Repeated names (a reused module) get an index: ``"relu"``, ``"relu:1"``, ... A tap inside a ``scan`` has the loop's
    length as its first axis.

    Args:
      f: any JAX function, or callable pytree.
      *args: its arguments, or ``jax.ShapeDtypeStruct`` in their place; nothing is computed.

    Returns:
      Names with shapes and dtypes.
    """
    return {t.name: t.shape for t in _find(program(f, *args)[0].jaxpr) if t.readable}


def located(f: Callable, *args: Any, names: Iterable[str] = ()) -> tuple[c.ClosedJaxpr, dict[str, tuple[Path, Any]]]:
    """The traced function, and where in it each tap of ``taps`` is: for those who follow values through it.

    Args:
      f: any JAX function, or callable pytree.
      *args: its arguments; nothing is computed.
      names: taps that there must be.

    Returns:
      The jaxpr, and by name the path and shape of each tap.

    Raises:
      ValueError: unknown names (the message lists what there is, nearest first).
    """
    closed, _ = program(f, *args)
    found = _find(closed.jaxpr)
    _lookup(found, names)
    return closed, {t.name: (t.path, t.shape) for t in found if t.readable}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Capture:
    """``f`` that also returns what it computed on the way; see ``capture``."""

    f: Any
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, *args: Any) -> tuple[Any, dict[str, Any]]:
        """Output of ``f`` and the captured values by name."""
        return tapped(self.f, read=self.names)(*args)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replace:
    """``f`` with some of its intermediate values replaced; see ``replace``."""

    f: Any
    values: dict[str, Any]

    def __call__(self, *args: Any) -> Any:
        """Output of ``f`` computed from the given intermediate values."""
        return tapped(self.f, write=self.values)(*args)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Features:
    """``f`` up to a tap; see ``split``."""

    f: Any
    name: str = dataclasses.field(metadata={"static": True})

    def __call__(self, *args: Any) -> Any:
        """The value at the tap."""
        return tapped(self.f, read=(self.name,))(*args)[1][self.name]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """``f`` from a tap on; see ``split``."""

    f: Any
    name: str = dataclasses.field(metadata={"static": True})

    def __call__(self, *args_and_features: Any) -> Any:
        """Output of ``f`` at the given arguments, its tap having the value of the last one."""
        *args, features = args_and_features
        return tapped(self.f, write={self.name: features})(*args)[0]


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def capture(f: Callable, names: str | Iterable[str]) -> Capture:
    """Make ``f`` return intermediate values: ``capture(f, names)(x) == (f(x), {name: value})``.

    Args:
      f: any JAX function or callable pytree; its leaves stay leaves of the result.
      names: one tap or several.

    Returns:
      A callable pytree. Differentiable; values from inside ``scan`` are stacked, from a branch not taken are zero.

    Raises:
      ValueError: (when called) unknown names; the message lists what there is, nearest first.
    """
    return Capture(f, _names(names))


def replace(f: Callable, values: Mapping[str, Any]) -> Replace:
    """Put given arrays in place of intermediate values: an intervention inside ``f``.

    Args:
      f: any JAX function or callable pytree.
      values: tap name -> array of the tap's shape (``taps`` tells it).

    Returns:
      A callable pytree with the arguments and output of ``f``. What only fed the replaced arrays is not computed.

    Raises:
      ValueError: (when called) unknown names or other shapes.
    """
    return Replace(f, dict(values))


def split(f: Callable, name: str) -> tuple[Features, Head]:
    """Cut ``f`` at a tap: ``features, head = split(f, name)`` with ``head(x, features(x)) == f(x)``, bit for bit.

    The head takes ``x`` too, because skip connections may go around the tap. Its derivative by the features is the
    partial one (what CAM methods call the gradient at a layer).

    Args:
      f: any JAX function or callable pytree.
      name: a tap.

    Returns:
      Two callable pytrees, ``features(*args)`` and ``head(*args, features)``.

    Raises:
      ValueError: (when called) unknown name.
    """
    return Features(f, name), Head(f, name)
