"""Keras 3 models on the JAX backend."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import jax

from jaxsal._checks import message
from jaxsal.classifiers._calls import check_call, no_variables
from jaxsal.classifiers._static import Keywords, Static
from jaxsal.classifiers._taps import Tapper, join

_LOCK = threading.RLock()  # layers are shared objects: one call at a time may have them changed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class KerasNetwork:
    """A Keras model with the values of its variables, by path; each layer is tapped while a call lasts."""

    trainable: dict[str, Any]
    non_trainable: dict[str, Any]
    keywords: Keywords
    model: Static = dataclasses.field(metadata={"static": True})
    tapper: Tapper = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        """What the model gives for ``x``, without training-time behaviour and without the new state."""
        model = self.model.value
        trainable = [self.trainable[name] for name in names(model.trainable_variables)]
        non_trainable = [self.non_trainable[name] for name in names(model.non_trainable_variables)]
        with _tapped(model, self.tapper):
            return model.stateless_call(trainable, non_trainable, x, **self.keywords.merge())[0]


def names(variables: list[Any]) -> list[str]:
    """The paths of Keras variables, repeated ones with an index."""
    seen: dict[str, int] = {}
    found = []
    for variable in variables:
        count = seen.get(variable.path, 0)
        seen[variable.path] = count + 1
        found.append(f"{variable.path}:{count}" if count else variable.path)
    return found


def _layers(layer: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every layer in a layer, once, with its (first) path."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if id(part) not in seen:
            seen.add(id(part))
            yield join((*path, part.name)), part
            yield from _layers(part, (*path, part.name), seen)


@contextlib.contextmanager
def _tapped(model: Any, tapper: Tapper) -> Iterator[None]:
    """Give each layer, for the time being, a ``call`` of its own that taps what the layer's gives."""

    def tapping(call: Any, path: str) -> Any:
        @functools.wraps(call)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            return tapper(call(*args, **kwargs), path)

        return tapped

    with _LOCK, contextlib.ExitStack() as undo:
        for path, layer in _layers(model, (), {id(model)}):
            own = vars(layer)  # past __setattr__, which tracks what is assigned
            if "call" in own:
                undo.callback(own.__setitem__, "call", own["call"])
            else:
                undo.callback(own.pop, "call")
            own["call"] = tapping(layer.call, path)
        yield


def adapt(model: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> KerasNetwork:
    """A callable pytree of a built Keras model."""
    import keras

    backend = keras.config.backend()
    if backend != "jax":
        hint = "Set the environment variable KERAS_BACKEND=jax before keras is imported."
        raise ValueError(message("Keras backend", backend, "jax", hint))
    if not model.built:
        hint = "Call it on a batch of images first; that creates its parameters."
        raise ValueError(message("Keras model", f"{model.name!r}, not built", "a built one", hint))
    no_variables("a Keras model", variables)
    check_call(model.call, model.name, call_kwargs)
    if "training" in inspect.signature(model.call).parameters:
        call_kwargs = {"training": False, **call_kwargs}
    trainable, non_trainable = model.trainable_variables, model.non_trainable_variables
    return KerasNetwork(
        dict(zip(names(trainable), [v.value for v in trainable])),
        dict(zip(names(non_trainable), [v.value for v in non_trainable])),
        Keywords.of(call_kwargs),
        Static(model),
        tapper,
    )
