"""Equinox modules, with or without state."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxsal._checks import message
from jaxsal.classifiers._calls import check_call
from jaxsal.classifiers._notices import report
from jaxsal.classifiers._origins import changed
from jaxsal.classifiers._static import Keywords, Partitioned
from jaxsal.classifiers._taps import ATTRIBUTE, Tapper, join, key_names, tapped_class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EquinoxNetwork:
    """An Equinox module in inference mode, its submodules tapped."""

    module: Partitioned
    state: Any
    keywords: Keywords

    @property
    def name(self) -> str:
        """Of the module's class."""
        return type(self.module.merge()).__name__

    @property
    def parameters(self) -> Any:
        """What counts as such."""
        return self.module.arrays

    def __call__(self, x: Any) -> Any:
        """What the module gives for ``x``; of a stateful one, without the new state."""
        module, keywords = self.module.merge(), self.keywords.merge()
        if self.state is None:
            return module(x, **keywords)
        # Equinox's State invalidates itself when set: give the module one of its own.
        tree: Any
        leaves, tree = jax.tree.flatten(self.state)
        out, state = module(x, tree.unflatten(leaves), **keywords)

        def run(old: list[Any]) -> list[Any]:
            return jax.tree.leaves(module(x, tree.unflatten(old), **keywords)[1])

        found = changed(leaves, jax.tree.leaves(state), run)
        report(type(module).__name__, [f"array {i} of its State" for i in found])
        return out


def _is_layer(module: Any) -> bool:
    """Whether to tap it: Equinox's own wrappers of functions (jit, partial, bound methods) are no layers."""
    home = type(module).__module__
    return callable(module) and (home.startswith("equinox.nn") or not home.startswith("equinox."))


def _tapped(module: Any, path: tuple[str, ...], tapper: Tapper) -> Any:
    """A copy of a module, all in it tapped, itself too unless it is the root."""
    import equinox as eqx

    def is_part(node: Any) -> bool:
        return node is not module and isinstance(node, eqx.Module)

    parts, treedef = jax.tree_util.tree_flatten_with_path(module, is_leaf=is_part)
    new = [_tapped(part, (*path, *_names(keys)), tapper) if is_part(part) else part for keys, part in parts]
    copy = jax.tree.unflatten(treedef, new)
    if path and _is_layer(copy):
        field = eqx.field(static=True, default=None, kw_only=True)
        subclass = tapped_class(type(copy), {ATTRIBUTE: Any}, {ATTRIBUTE: field})
        object.__setattr__(copy, ATTRIBUTE, (join(path), tapper))
        object.__setattr__(copy, "__class__", subclass)
    return copy


def _names(keys: tuple[Any, ...]) -> list[str]:
    return [name for name in key_names(keys) if not name.startswith("__")]


def adapt(module: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> EquinoxNetwork:
    """A callable pytree of an Equinox module; ``variables`` is its state, if it has one."""
    import equinox as eqx

    if variables is not None and not isinstance(variables, eqx.nn.State):
        hint = "The parameters of an Equinox module are in it."
        raise TypeError(message("variables", type(variables).__name__, "an equinox.nn.State or None", hint))
    if not callable(module):
        raise TypeError(message("Equinox module", type(module).__name__, "one that can be called"))
    stateful = any(isinstance(leaf, eqx.nn.StateIndex) for leaf in _indices(module, eqx.nn.StateIndex))
    if stateful and variables is None:
        hint = "equinox.nn.make_with_state gives both the model and its state."
        raise TypeError(message("variables", "None", "the state of the model", hint))
    keywords = check_call(module, type(module).__name__, call_kwargs, positional=1 if variables is None else 2)
    tapper = dataclasses.replace(tapper, opaque=(eqx.nn.State,))
    copy = _tapped(eqx.nn.inference_mode(module), (), tapper)
    return EquinoxNetwork(Partitioned.of(copy), variables, Keywords.of(keywords))


def _indices(module: Any, kind: type) -> list[Any]:
    return jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, kind))
