"""Haiku transforms: ``hk.transform``, with or without ``hk.without_apply_rng``, and ``hk.transform_with_state``."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax

from jaxsal._checks import message
from jaxsal.classifiers._calls import check_call, check_parameters
from jaxsal.classifiers._notices import report
from jaxsal.classifiers._origins import changed
from jaxsal.classifiers._static import Keywords, Static
from jaxsal.classifiers._taps import Tapper, join, key_names


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class HaikuNetwork:
    """A Haiku transform with its parameters and state, each module's ``__call__`` tapped through interceptors."""

    params: Any
    state: Any
    rng: Any
    keywords: Keywords
    transform: Static = dataclasses.field(metadata={"static": True})
    tapper: Tapper = dataclasses.field(metadata={"static": True})

    @property
    def name(self) -> str:
        """Of the module that holds all others, if there is one."""
        roots = {path.split("/")[0] for path in self.params}
        return roots.pop() if len(roots) == 1 else "Haiku transform"

    @property
    def parameters(self) -> Any:
        """What counts as such."""
        return self.params

    def __call__(self, x: Any) -> Any:
        """What the transformed function gives for ``x``, without the new state."""
        import haiku as hk

        inside: list[Any] = []

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name != "__call__" or any(module is m for m in inside):
                return call(*args, **kwargs)
            inside.append(module)
            try:
                parts = [part for part in module.module_name.split("/") if part != "~"]
                return self.tapper(call(*args, **kwargs), join(parts))
            finally:
                inside.pop()

        apply = self.transform.value.apply
        stateful = isinstance(self.transform.value, hk.TransformedWithState)
        given = [self.params, self.state] if stateful else [self.params]
        if _takes_rng(apply, len(given)):
            given.append(self.rng)

        def run(given: list[Any]) -> Any:
            with hk.intercept_methods(intercept):
                return apply(*given, x, **self.keywords.merge())

        if not stateful:
            return run(given)
        out, state = run(given)
        self._check_state(state, lambda state: run([given[0], state, *given[2:]])[1])
        return out

    def _check_state(self, state: Any, run: Any) -> None:
        tree: Any
        before, tree = jax.tree_util.tree_flatten_with_path(self.state)
        if jax.tree.structure(state) != tree:
            report("the Haiku transform", ["its structure"])
        leaves = [leaf for _, leaf in before]
        found = changed(leaves, jax.tree.leaves(state), lambda old: jax.tree.leaves(run(tree.unflatten(old))))
        report("the Haiku transform", [join(key_names(before[i][0])) for i in found])


def _takes_rng(apply: Any, position: int) -> bool:
    """Whether the argument at ``position`` is the key: not so after ``hk.without_apply_rng``."""
    return list(inspect.signature(apply).parameters)[position : position + 1] == ["rng"]


def adapt(transform: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> HaikuNetwork:
    """A callable pytree of a Haiku transform and its parameters, or (parameters, state).

    A network that draws random numbers gets its key as ``call_kwargs={"rng": key}``.
    """
    import haiku as hk

    stateful = isinstance(transform, hk.TransformedWithState)
    pair = isinstance(variables, tuple) and len(variables) == 2
    if variables is None or pair != stateful:
        expected = "(params, state)" if stateful else "params"
        got = "a pair" if pair else type(variables).__name__
        raise TypeError(message("variables", got, f"{expected}, as the transform's init gave"))
    params, state = variables if stateful else (variables, None)
    check_parameters("variables", (params, state))
    leading = 2 if stateful else 1
    takes_rng = _takes_rng(transform.apply, leading)
    if "rng" in call_kwargs and not takes_rng:
        raise TypeError(message("call_kwargs", "'rng'", "none for a transform without it"))
    rest = {name: value for name, value in call_kwargs.items() if name != "rng"}
    keywords = Keywords.of(check_call(transform.apply, "the transform", rest, positional=leading + takes_rng + 1))
    return HaikuNetwork(params, state, call_kwargs.get("rng"), keywords, Static(transform), tapper)
