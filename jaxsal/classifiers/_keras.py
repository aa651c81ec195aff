"""Keras 3 models on the JAX backend."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
from collections.abc import Iterator
from typing import Any

from jaxsal._checks import message
from jaxsal.classifiers._calls import check_call, no_variables
from jaxsal.classifiers._notices import report
from jaxsal.classifiers._origins import changed
from jaxsal.classifiers._static import Keywords, Live, Static, node
from jaxsal.classifiers._taps import Tapper, join, unique

_LOCK = threading.RLock()  # layers are shared objects: one call at a time may have them changed


@node("trainable", "non_trainable", "keywords", static=("model", "tapper"))
@dataclasses.dataclass(eq=False, repr=False)
class KerasNetwork(Live):
    """A Keras model with the values of its variables, by path; each layer is tapped while a call lasts.

    It reads the values from the model when it is used, so it follows training. What is made of it as of any pytree (by
    ``jax.tree.map``, as an argument of ``jax.jit``) has values of its own.
    """

    keywords: Keywords
    model: Static
    tapper: Static

    def __getattr__(self, name: str) -> Any:
        if name not in ("trainable", "non_trainable"):  # in what is put together from leaves, attributes like others
            raise AttributeError(name)
        variables = getattr(self.model.value, f"{name}_variables")
        return dict(zip(unique(v.path for v in variables), (v.value for v in variables)))

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.value.name

    @property
    def parameters(self) -> Any:
        """What is trained."""
        return self.trainable

    def __call__(self, x: Any) -> Any:
        """What the model gives for ``x``, without training-time behaviour."""
        kinds, model = ("trainable", "non_trainable"), self.model.value
        names = [unique(v.path for v in getattr(model, f"{kind}_variables")) for kind in kinds]
        trainable, before = ([getattr(self, kind)[n] for n in own] for kind, own in zip(kinds, names))
        out, after = self._run(trainable, before, x)
        found = [names[1][i] for i in changed(before, after, lambda old: self._run(trainable, old, x)[1])]
        report(self.name, [n for n in found if "seed_generator" not in n], [n for n in found if "seed_generator" in n])
        return out

    def _run(self, trainable: list[Any], non_trainable: list[Any], x: Any) -> Any:
        model = self.model.value
        with _tapped(model, self.tapper.value):
            return model.stateless_call(trainable, non_trainable, x, **self.keywords.merge())


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
    call_kwargs = check_call(model.call, model.name, call_kwargs)
    if "training" in inspect.signature(model.call).parameters:
        call_kwargs = {"training": False, **call_kwargs}
    return KerasNetwork(Keywords.of(call_kwargs), Static(model), Static(tapper))
