"""Where relevance went: an account of every tap, and of what biases and stabilisers absorbed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._method import method, settle
from jaxsal._types import Classifier, Images, Scores, TargetLike
from jaxsal.propagation._relevance import composites
from jaxsal.propagation._relevance.composites import RelevanceTable
from jaxsal.propagation._relevance.lrp import relevance
from jaxsal.propagation._relevance.propagate import COLUMNS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ledger:
    """What ``relevance_ledger`` gives; every number is one an image, ``float[n]``.

    Attributes:
      seed: relevance that the logits were given, in total.
      input: relevance that arrived at the image, in total.
      arrived: by tap, relevance that arrived there. A tap on a side branch has only the branch's part, and one inside
        a layer (between a convolution and its batch normalisation) what arrived at the layer's output.
      bias: by tap, what biases absorbed right before it ("output": behind the last tap), in layers and where constants
        are added elsewhere.
      stabiliser: likewise what stabilisers absorbed, in layers, sums and pools.
      one_sided: likewise what went nowhere, since a unit had no terms of one sign (rules αβ and z⁺); negative where the
        other sign's part was more than all.
      taps: the keys of these, from the output to the image.
    """

    seed: Scores
    input: Scores
    arrived: dict[str, Scores]
    bias: dict[str, Scores]
    stabiliser: dict[str, Scores]
    one_sided: dict[str, Scores]
    taps: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @property
    def absorbed(self) -> Scores:
        """All that biases and stabilisers took, and what was one-sided."""
        took = (self.bias, self.stabiliser, self.one_sided)
        return sum((v for column in took for v in column.values()), start=jnp.zeros_like(self.seed))

    @property
    def gap(self) -> Scores:
        """``seed − input − absorbed``: zero for tables that conserve relevance."""
        return self.seed - self.input - self.absorbed

    def __str__(self) -> str:
        """A table, of the mean over images."""
        head = f"{'tap':32}" + "".join(f"{column.replace('_', '-'):>14}" for column in COLUMNS)
        lines = [head, f"{'(seed)':32}{float(jnp.mean(self.seed)):14.6g}"]
        for name in self.taps:
            cells = (column.get(name) for column in map(self.__getattribute__, COLUMNS))
            lines.append(f"{name:32}" + "".join("" if v is None else f"{float(jnp.mean(v)):14.6g}" for v in cells))
        lines.append(f"{'(image)':32}{float(jnp.mean(self.input)):14.6g}")
        return "\n".join(lines)


@method(lower=False)
def relevance_ledger(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    composite: RelevanceTable | str = "epsilon_plus",
    seed: str = "one_hot",
    bias: str = "absorb",
) -> Ledger:
    """Account for relevance: at each tap what arrived, and what bias and stabiliser absorbed on the way.

    seed = input + Σ_taps (bias + stabiliser + one-sided), to rounding, for tables whose rules conserve relevance (all
    but flat and w² at padded borders of explicit ``pad``, α − β ≠ 1, and rules of your own).

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      composite: as in ``lrp``.
      seed: as in ``lrp``.
      bias: as in ``lrp``.

    Returns:
      The account, one number an image.

    Raises:
      TypeError: relevance meets a primitive without a rule.
      ValueError: unknown composite, seed or bias.

    References:
      Bach et al. 2015, Eq. 2 (conservation); white-box survey, Eq. 11.
    """
    table = composites.table_of(composite)
    settled = settle(f, x, target)

    def single(image: Any, chosen: Any) -> tuple[Any, ...]:
        chosen = jax.tree.map(lambda v: v[None], chosen)
        share, seeds, account = relevance(f, image[None], chosen, table, seed, bias)
        order[:] = dict.fromkeys(name for column in account.columns.values() for name in column)
        return seeds.sum(), share.sum(), account.columns

    order: list[str] = []  # dictionaries come back from vmap with their keys sorted
    seeds, arrived_at_input, columns = jax.vmap(single)(x, settled)
    return Ledger(seed=seeds, input=arrived_at_input, taps=tuple(order), **columns)
