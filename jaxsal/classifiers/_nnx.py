"""Flax NNX modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from jaxsal.classifiers._calls import check_call, no_variables
from jaxsal.classifiers._notices import report
from jaxsal.classifiers._origins import changed
from jaxsal.classifiers._static import Keywords, Live, Static, node
from jaxsal.classifiers._taps import ATTRIBUTE, Tapper, join, key_names, tapped_class, unique


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a module is without its arrays: hashable.

    Attributes:
      name: its own, or that of its class.
      graph: NNX's own description, in evaluation mode.
      state: structure of the state that goes with it.
      arrays: of the state, in its order: the name of each, and the class of its variable.
      tapper: how submodules are tapped; None for a module that has taps of its own.
    """

    name: str
    graph: Any
    state: Any
    arrays: tuple[tuple[str, type], ...]
    tapper: Tapper | None


@node("variables", "keywords", static=("structure",))
@dataclasses.dataclass(eq=False, repr=False)
class NNXNetwork(Live):
    """An NNX module in evaluation mode, taken apart: each call makes a private one and taps its submodules.

    It holds the module's variables and reads their arrays when it is used, so it follows training. What is made of it
    as of any pytree (by ``jax.tree.map``, as an argument of ``jax.jit``) has arrays of its own.
    """

    source: Sequence[Any]
    keywords: Keywords
    structure: Static

    def __getattr__(self, name: str) -> Any:
        if name != "variables":  # in what is put together from leaves, an attribute like others
            raise AttributeError(name)
        return dict(zip((name for name, _ in self.structure.value.arrays), _arrays(self.source)))

    def now(self) -> NNXNetwork:
        """The same with the arrays that the module has now, kept."""
        out: NNXNetwork = object.__new__(NNXNetwork)
        vars(out).update(variables=self.variables, keywords=self.keywords, structure=self.structure)
        return out

    @property
    def name(self) -> str:
        """Of the module, or of its class."""
        return self.structure.value.name

    @property
    def parameters(self) -> Any:
        """The arrays of its ``nnx.Param``."""
        from flax import nnx

        return [self.variables[name] for name, kind in self.structure.value.arrays if issubclass(kind, nnx.Param)]

    def __call__(self, x: Any) -> Any:
        """What the module gives for ``x``."""
        from flax import nnx

        arrays, given = self.structure.value.arrays, self.variables
        before = [given[name] for name, _ in arrays]
        out, after = self._run(before, x)
        found = [arrays[i] for i in changed(before, after, lambda old: self._run(old, x)[1])]
        kept = [name for name, kind in found if not issubclass(kind, nnx.RngState | nnx.Intermediate)]
        report(self.name, kept, [name for name, kind in found if issubclass(kind, nnx.RngState)])
        return out

    def _run(self, leaves: Sequence[Any], x: Any) -> tuple[Any, list[Any]]:
        from flax import nnx

        structure = self.structure.value
        module = nnx.merge(structure.graph, structure.state.unflatten(leaves), copy=True)
        # Lists first: the walk must not meet objects that have changed their class.
        variables = {path: v for path, v in nnx.iter_graph(module) if isinstance(v, nnx.Variable)}
        for path, part in [] if structure.tapper is None else list(nnx.iter_modules(module)):
            if path and part is not module and callable(part):
                cls = type(part)
                subclass = tapped_class(cls, {}, {}, pytree=cls._pytree__is_pytree)
                # Past __setattr__: NNX would take the path for a new attribute of the model, and check it.
                object.__setattr__(part, ATTRIBUTE, (join(path), structure.tapper))
                object.__setattr__(part, "__class__", subclass)
        out = module(x, **self.keywords.merge())
        return out, _arrays(variables.values())


def _arrays(variables: Iterable[Any]) -> list[Any]:
    return jax.tree.leaves([variable.get_raw_value() for variable in variables])


def adapt(module: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper | None) -> NNXNetwork:
    """A callable pytree of an NNX module; the module itself is not changed, but its variables are kept."""
    from flax import nnx

    no_variables("an NNX module", variables)
    keywords = Keywords.of(check_call(module, type(module).__name__, call_kwargs))
    own = nnx.clone(module)
    own.eval()
    graph, state = nnx.split(own)
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    kinds = [type(v) for _, v in nnx.to_flat_state(state) for _ in jax.tree.leaves(v)]
    names = unique(join(name for name in key_names(path) if name != "value") for path, _ in leaves)
    name = getattr(module, "name", None)
    name = name if isinstance(name, str) else type(module).__name__
    structure = Structure(name, graph, tree, tuple(zip(names, kinds)), tapper)
    return NNXNetwork(_source(module, state), keywords, Static(structure).one())


def _source(module: Any, state: Any) -> list[Any]:
    """The module's own variables, in the order of the state of its copy."""
    from flax import nnx

    own = {path: part for path, part in nnx.iter_graph(module) if isinstance(part, nnx.Variable)}
    return [own[path] for path, _ in nnx.to_flat_state(state)]
