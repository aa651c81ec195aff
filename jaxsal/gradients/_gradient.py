"""The gradient of the score, alone and times the input."""

from __future__ import annotations

import jax

from jaxsal._method import method
from jaxsal._types import Attributions, Classifier, Images, TargetLike
from jaxsal.targets import resolve


@method
def gradient(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Sensitivity map: dS/dx, the gradient of the explained score by the image.

    One evaluation forward and one back. ``js.heatmap(..., "max_abs")`` makes the paper's picture of it, the largest
    |dS/dx| over the colour channels.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``, in units of score per unit of intensity.

    References:
      Simonyan et al. 2014, "Deep inside convolutional networks"; white-box survey, Eq. 6.
    """
    return _gradient(f, x, target)


@method
def input_x_gradient(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Input times gradient: x ⊙ dS/dx, a first-order estimate of what each value of the image adds to the score.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``, in units of the score.

    References:
      Shrikumar et al. 2017, "Not just a black box".
    """
    return x * _gradient(f, x, target)


def _gradient(f: Classifier, x: Images, target: TargetLike) -> Attributions:
    score = resolve(target)
    return jax.grad(lambda x: score(f(x)).sum())(x)
