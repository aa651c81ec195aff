"""Flax NNX modules."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxsal.classifiers._calls import check_call, no_variables
from jaxsal.classifiers._static import Keywords, Static
from jaxsal.classifiers._taps import ATTRIBUTE, Tapper, join, tapped_class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class NNXNetwork:
    """An NNX module in evaluation mode, taken apart: each call makes a private one and taps its submodules."""

    state: Any
    keywords: Keywords
    graph: Static = dataclasses.field(metadata={"static": True})
    tapper: Tapper = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        """What the module gives for ``x``."""
        from flax import nnx

        module = nnx.merge(self.graph.value, self.state, copy=True)
        # A list first: the walk must not meet objects that have changed their class.
        for path, part in list(nnx.iter_modules(module)):
            if path and part is not module and callable(part):
                cls = type(part)
                subclass = tapped_class(cls, {}, {}, pytree=cls._pytree__is_pytree)
                # Past __setattr__: NNX would take the path for a new attribute of the model, and check it.
                object.__setattr__(part, ATTRIBUTE, (join(path), self.tapper))
                object.__setattr__(part, "__class__", subclass)
        return module(x, **self.keywords.merge())


def adapt(module: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> NNXNetwork:
    """A callable pytree of an NNX module; the module itself is neither changed nor kept."""
    from flax import nnx

    no_variables("an NNX module", variables)
    check_call(module, type(module).__name__, call_kwargs)
    own = nnx.clone(module)
    own.eval()
    graph, state = nnx.split(own)
    return NNXNetwork(state, Keywords.of(call_kwargs), Static(graph), tapper)
