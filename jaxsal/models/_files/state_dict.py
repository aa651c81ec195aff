"""Weights under torchvision's names: networks from a dict of arrays, with no PyTorch at hand.

Our modules carry torchvision's names, so the map is declared once, by kind of parameter
(``_layouts.LAYOUTS``); a network class declares its exceptions: ``layouts``, ``renames``, ``ignorable``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal._checks import message
from jaxsal.models._architectures.layouts import LAYOUTS, Layout
from jaxsal.models._architectures.network import Network
from jaxsal.models._architectures.registry import architecture


class Entry(NamedTuple):
    """Where one array of a state dict goes.

    Attributes:
      path: path of our parameter.
      layout: how it is translated.
      shape: shape expected in the state dict.
    """

    path: tuple[Any, ...]
    layout: Layout
    shape: tuple[int, ...]


class _OneKey(nnx.Rngs):
    """The same key for every parameter, where only shapes matter: counting keys is most of the time of a trace."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


def name_map(network: Network) -> dict[str, Entry]:
    """PyTorch's name of each parameter of a network (abstract ones will do), and where it goes."""
    entries = {}
    for path, variable in nnx.to_flat_state(nnx.state(network)):
        *module, leaf = (str(part) for part in path)
        shape = tuple(variable.get_value().shape)
        torch_leaf, layout = LAYOUTS[leaf, len(shape)]
        name = ".".join([*module, torch_leaf])
        layout = network.layouts.get(name, layout)
        entries[name] = Entry(path, layout, layout.shape(shape))
    return entries


def _current_names(network: type[Network], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict under current names, without the entries that no network needs."""
    arrays = {}
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked") or name.startswith(network.ignorable):
            continue
        for pattern, replacement in network.renames:
            name = re.sub(pattern, replacement, name)
        arrays[name] = value
    return arrays


def _check(name: str, expected: dict[str, Entry], arrays: dict[str, Any]) -> None:
    missing = [key for key in expected if key not in arrays]
    unused = [key for key in arrays if key not in expected]
    misshapen = [
        f"{key} {tuple(np.shape(arrays[key]))}, expected {entry.shape}"
        for key, entry in expected.items()
        if key in arrays and tuple(np.shape(arrays[key])) != entry.shape
    ]
    faults = [
        f"{kind}: {'; '.join(keys)}"
        for kind, keys in (("missing", missing), ("unused", unused), ("misshapen", misshapen))
        if keys
    ]
    if faults:
        what = f"state dict of {name}"
        hint = "These are weights of another architecture, or incomplete."
        raise ValueError(message(what, " | ".join(faults), "exactly the entries of this network", hint))


def from_torchvision(name: str, state_dict: Mapping[str, Any], **options: Any) -> Network:
    """A network with the weights of a state dict.

    The number of classes is read from the state dict. All parameters become float32, whatever they were.
    ``num_batches_tracked``, and the auxiliary heads of GoogLeNet, are passed over.

    Args:
      name: one of ``jaxsal.models.list()``.
      state_dict: torchvision's name -> array (NumPy, or anything NumPy can read), in PyTorch's layout.
      **options: of the architecture, as for ``jaxsal.models.create``.

    Returns:
      The raw network: it takes normalised images.

    Raises:
      ValueError: no such model; or entries of the state dict are missing, unused or of the wrong shape, all
        of which are named.
    """
    network_class = architecture(name)
    arrays = _current_names(network_class, state_dict)
    bias = np.shape(arrays.get(f"{network_class.head}.bias", ()))
    if "num_classes" not in options and len(bias) == 1 and bias[0] > 0:
        options["num_classes"] = bias[0]
    # Shapes only: the weights come from the state dict, random ones would be time lost.
    network = nnx.eval_shape(lambda: network_class(name, rngs=_OneKey(0), **options))
    expected = name_map(network)
    _check(name, expected, arrays)
    graph, state = nnx.split(network)
    flat = dict(nnx.to_flat_state(state))
    for key, entry in expected.items():
        value = entry.layout.convert(np.asarray(arrays[key], dtype=np.float32))
        flat[entry.path] = flat[entry.path].replace(jnp.asarray(value))
    return nnx.merge(graph, nnx.from_flat_state(flat))
