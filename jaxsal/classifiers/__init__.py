"""Classifiers of anything: a callable pytree ``f(images) -> logits`` out of any model, tapped at every submodule."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._types import Classifier
from jaxsal.classifiers import _blackbox, _functions
from jaxsal.classifiers._calls import no_variables
from jaxsal.classifiers._hoisting import hoist as hoist
from jaxsal.classifiers._notices import WITHOUT_GRADIENTS as WITHOUT_GRADIENTS
from jaxsal.classifiers._notices import announce as announce
from jaxsal.classifiers._notices import guarded as guarded
from jaxsal.classifiers._remembered import remembered
from jaxsal.classifiers._static import Live, is_array, is_leaf
from jaxsal.classifiers._taps import Tapper
from jaxsal.classifiers._wrapped import Wrapped as Wrapped

MARK = "__jaxsal_classifier__"


def wrap(
    model: Any,
    variables: Any = None,
    *,
    layout: str = "NHWC",
    batched: bool = True,
    pure: bool = True,
    mean: Any = None,
    std: Any = None,
    output: Callable | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    cam_layer: str | None = None,
) -> Classifier:
    """Make a classifier of anything: a callable pytree ``f(images) -> logits`` whose leaves are the parameters.

    Models of neural-network libraries are put into evaluation mode and tapped at every submodule by its path
    (``"layers.0.conv1"``), without being changed. A submodule that gives several arrays is tapped as ``"path.0"``,
    ``"path.1"`` or ``"path.key"``. An argument such as ``train`` that is True by default is False here, unless
    ``call_kwargs`` has it; a network whose call changes its state all the same (batch statistics) is an error when it
    is called. A callable pytree, such as a registered dataclass, is a classifier already: it is returned as it is, if
    no option asks for more; so is anything whose class says ``__jaxsal_classifier__ = True``.

    An NNX module or a Keras model may be trained further: the classifier reads its variables whenever it is used.
    (``jax.tree.map(lambda a: a, f)`` keeps them as they are now; other layers than it had need a new ``wrap``.) What
    is immutable, an Equinox module or the variables of a Linen module, is as it was when it was wrapped; if it was
    donated to a compiled function since, methods say so.

    Args:
      model: a Flax Linen module, Flax NNX module, Equinox module, Haiku transform, built Keras model (JAX backend),
        function ``f(images)``, ``apply(params, images)``, or a pair of any of these with its variables.
      variables: of a Linen module, what ``init`` gave (a bound module has its own); of a Haiku transform, its
        parameters or (parameters, state); of an Equinox module, its state, if any; of ``apply``, the parameters.
      layout: of the model's input, "NHWC" or "NCHW". Taps of a channels-first model show arrays of the rank of images
        channels last.
      batched: whether the model takes batches; False for one example at a time.
      pure: False for a function of NumPy arrays (float32, a batch or an example) of which JAX is to know nothing but
        that it gives logits. It is called once more, with zeros, to see how many. Methods that need neither derivatives
        nor taps can explain it: occlusion, rise, lime, kernel_shap, shapley. ``output`` sees what it gave.
      mean: subtracted from the images first; a number, or one for each channel.
      std: then the images are divided by it; a number, or one for each channel.
      output: picks the (batch of) logits from what the model gives: ``lambda out: out[0]``. Part of the identity of
        compiled programs: give the same function again, not a new one.
      call_kwargs: more arguments of the model: ``{"train": False}``.
      labels: names of the classes, kept as ``.labels``.
      cam_layer: the tap that class activation maps read by default, kept as ``.cam_layer``.

    Returns:
      The classifier. It takes images float[n h w c], usually in [0, 1], and gives logits float[n k]; anything else
      that the model gives is an error when it is called.

    Raises:
      TypeError: not something that can be a classifier; variables missing or of the wrong kind; arguments of the model
        missing.
      ValueError: an option out of range; a Keras backend other than JAX; (when called) no logits [n k].
    """
    _check_options(layout, batched, pure, output, call_kwargs, cam_layer)
    mean, std = _statistic("mean", mean), _statistic("std", std)
    names = _labels(labels)
    if type(model) is tuple and len(model) == 2:
        if variables is not None:
            raise TypeError(message("variables", type(variables).__name__, "None: the model came with its own"))
        model, variables = model
    if not pure:
        no_variables("a black-box function", variables)
        _functions.check_callable(model)
        network: Any = _blackbox.adapt(model, dict(call_kwargs or {}), output, batched)
        return Wrapped(network, mean, std, layout, batched, None, names, cam_layer)
    tapper = Tapper((1 if batched else 0) if layout == "NCHW" else None)
    network = _network(model, variables, dict(call_kwargs or {}), tapper)
    plain = (layout, batched) == ("NHWC", True)
    if network is model and plain and all(v is None for v in (mean, std, output, names, cam_layer)):
        return network
    if network is model and _is(model, "flax.nnx", "Module"):  # the same, taken apart once and not at every use
        from jaxsal.classifiers import _nnx

        network, cam_layer = _nnx.adapt(model, None, {}, None), cam_layer or getattr(model, "cam_layer", None)
    return Wrapped(network, mean, std, layout, batched, output, names, cam_layer)


def _network(model: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> Any:
    """The model as a callable pytree in its own layout; the model itself, if it is one already."""
    if isinstance(model, Wrapped) or getattr(type(model), MARK, False):
        return _as_it_is(model, variables, call_kwargs)
    if _is(model, "haiku", "Transformed") or _is(model, "haiku", "TransformedWithState"):
        from jaxsal.classifiers import _haiku

        return _haiku.adapt(model, variables, call_kwargs, tapper)
    if _is(model, "flax.linen", "Module"):
        from jaxsal.classifiers import _linen

        return _linen.adapt(model, variables, call_kwargs, tapper)
    if _is(model, "flax.nnx", "Module"):
        from jaxsal.classifiers import _nnx

        return _nnx.adapt(model, variables, call_kwargs, tapper)
    if _is(model, "equinox", "Module"):
        from jaxsal.classifiers import _equinox

        return _equinox.adapt(model, variables, call_kwargs, tapper)
    if _is(model, "keras", "Layer"):
        from jaxsal.classifiers import _keras

        return _keras.adapt(model, variables, call_kwargs, tapper)
    _functions.check_callable(model)
    if is_leaf(model) or variables is not None:
        return _functions.adapt(model, variables, call_kwargs)
    return _as_it_is(model, variables, call_kwargs)


def _is(model: Any, library: str, name: str) -> bool:
    """Whether ``model`` is an object of a class of a library, which then must have been imported."""
    cls = getattr(sys.modules.get(library), name, None)
    return isinstance(cls, type) and isinstance(model, cls)


def _as_it_is(model: Any, variables: Any, call_kwargs: dict[str, Any]) -> Any:
    no_variables("a callable pytree", variables)
    if call_kwargs:
        raise TypeError(message("call_kwargs", list(call_kwargs), "none: a callable pytree is called with images only"))
    return _functions.in_evaluation(model)


def ready(f: Any, x: Any) -> Any:
    """A classifier as methods need it: all arrays are leaves, and read now.

    A model of Keras, Flax NNX or Flax Linen that was not wrapped is, with no option.

    Args:
      f: a callable.
      x: the images it will be given, or their ``jax.ShapeDtypeStruct``.
    """
    if _is(f, "flax.nnx", "Module"):
        f = remembered(f, _apart, _is_nnx_part)
    elif any(_is(f, *library) for library in (("keras", "Layer"), ("flax.linen", "Module"))):
        f = f if getattr(type(f), MARK, False) else wrap(f)
    if isinstance(f, Wrapped) and isinstance(f.network, Live):
        return dataclasses.replace(f, network=f.network.now())
    return hoist(f, x)


def _apart(module: Any) -> Any:
    """A classifier of an NNX module that holds its variables, not the module; also of one that is a classifier."""
    if not getattr(type(module), MARK, False):
        return wrap(module)
    from jaxsal.classifiers import _nnx

    return Wrapped(
        _nnx.adapt(module, None, {}, None),
        cam_layer=getattr(module, "cam_layer", None),
        labels=getattr(module, "labels", None),
    )


def _is_nnx_part(value: Any) -> bool:
    nnx = sys.modules["flax.nnx"]
    return isinstance(value, nnx.Pytree) and not isinstance(value, nnx.Variable)


def check_alive(f: Any) -> None:
    """Raise ``ValueError`` if arrays of a classifier were deleted, by being donated to a compiled function."""
    deleted = [leaf for leaf in jax.tree.leaves(f) if isinstance(leaf, jax.Array) and _is_deleted(leaf)]
    if deleted:
        hint = "They were donated to a compiled function, such as a training step: wrap the model as it is now."
        raise ValueError(message("parameters of the classifier", f"{len(deleted)} deleted arrays", "none", hint))


def _is_deleted(leaf: jax.Array) -> bool:
    return not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted()


def _check_options(layout: Any, batched: Any, pure: Any, output: Any, call_kwargs: Any, cam_layer: Any) -> None:
    _checks.choice("layout", layout, ("NHWC", "NCHW"))
    for name, value in (("batched", batched), ("pure", pure)):
        if not isinstance(value, bool):
            raise TypeError(message(name, repr(value), "True or False"))
    if output is not None and not callable(output):
        raise TypeError(message("output", repr(output), "a function", "To take the first: lambda out: out[0]."))
    if call_kwargs is not None and not (
        isinstance(call_kwargs, Mapping) and all(isinstance(k, str) for k in call_kwargs)
    ):
        raise TypeError(message("call_kwargs", type(call_kwargs).__name__, "a dict of keyword arguments"))
    if cam_layer is not None and not isinstance(cam_layer, str):
        raise TypeError(message("cam_layer", repr(cam_layer), "the name of a tap (js.taps lists them)"))


def _statistic(what: str, value: Any) -> jax.Array | None:
    if value is None:
        return None
    if not isinstance(value, float | int | list | tuple) and not is_array(value):
        raise TypeError(message(what, type(value).__name__, "a number, or one for each channel"))
    array = jnp.asarray(value, None if is_array(value) else jnp.float32)
    if array.ndim > 1 or array.size == 0:
        raise ValueError(message(what, f"shape {array.shape}", "a number, or one for each channel"))
    with jax.ensure_compile_time_eval():  # wrap may be called inside jit
        _checks.finite(array, what)
        if what == "std" and _checks.readable(array) and not bool((array > 0).all()):
            raise ValueError(message(what, np.asarray(array).tolist(), "more than 0"))
    return array


def _labels(labels: Any) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(n, str) for n in labels):
        raise TypeError(message("labels", type(labels).__name__, "a sequence of strings, one for each class"))
    return tuple(labels)
