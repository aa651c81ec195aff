"""Deconvnet and guided back-propagation: the gradient with another rule at every ReLU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Attributions, Classifier, Images, TargetLike
from jaxsal.targets import resolve
from jaxsal.tracing.lowering import lowered
from jaxsal.tracing.tables import Rerouted, Table, is_relu, relu_rule


def relu_table(rule: Any) -> Table:
    """The table that applies ``rule(x, cotangent) -> cotangent`` at every ReLU and ReLU6, however it is written."""
    lifted = relu_rule(rule)
    return Table().with_rule(c.max_p, lifted, is_relu).with_rule(c.clamp_p, lifted, is_relu)


DECONVNET = relu_table(lambda x, cotangent: jnp.maximum(cotangent, 0))
GUIDED = relu_table(lambda x, cotangent: jnp.where(x > 0, jnp.maximum(cotangent, 0), 0))


def _back(f: Any, x: Any, target: Any, table: Table, name: str) -> Any:
    score, routed = resolve(target), Rerouted(f, table)
    if not routed.matches(x):
        expected = "at least one: maximum(x, 0), jax.nn.relu, relu6 or clip(x, 0, ·)"
        raise ValueError(message(f"ReLUs in the classifier, for {name}", 0, expected, "Use js.gradient."))
    return jax.grad(lambda x: score(lowered(routed)(x)).sum())(x)


@method(lower=False)
def guided_backprop(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Guided back-propagation: at each ReLU the backward signal R passes where both x > 0 and R > 0.

    R_in = R · 1[R > 0] · 1[x > 0]. Every ReLU counts, reused or functional: they are found in the traced program.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``.

    Raises:
      ValueError: the classifier has no ReLU (the result would silently be the gradient).

    References:
      Springenberg et al. 2015, "Striving for simplicity"; white-box survey, section 4.
    """
    return _back(f, x, target, GUIDED, "guided_backprop")


@method(lower=False)
def deconvnet(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Deconvolutional network: at each ReLU the backward signal itself is rectified, whatever x was.

    R_in = R · 1[R > 0]. Max-pooling passes the signal to the arg-max ("switches"), as in the paper.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``.

    Raises:
      ValueError: the classifier has no ReLU (the result would silently be the gradient).

    References:
      Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks"; white-box survey, section 4.
    """
    return _back(f, x, target, DECONVNET, "deconvnet")
