"""captum and pytorch-grad-cam on the same SqueezeNet 1.1, to be timed beside ours in one run.

Needs ``pip install '.[peers]'``. The network is written out in plain PyTorch, since torchvision has no CPU build
everywhere; pytorch-grad-cam imports torchvision only for pictures, so an empty stand-in does.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

TARGET = 3


def state_dict(network: Any) -> dict[str, np.ndarray]:
    """Random weights under torchvision's names, for both frameworks."""
    from jaxsal.models._files.state_dict import name_map

    rng = np.random.default_rng(0)
    out = {}
    for name, entry in name_map(network).items():
        fan_in = max(int(np.prod(entry.shape[1:])), 1)
        scale = np.sqrt(2 / fan_in) if len(entry.shape) > 1 else 0.1
        out[name] = (scale * rng.standard_normal(entry.shape)).astype(np.float32)
    return out


def squeezenet(state: dict[str, np.ndarray]) -> Any:
    """SqueezeNet 1.1 in PyTorch."""
    import torch
    from torch import nn

    class Fire(nn.Module):
        def __init__(self, inputs: int, squeezed: int, expanded: int):
            super().__init__()
            self.squeeze, self.squeeze_activation = nn.Conv2d(inputs, squeezed, 1), nn.ReLU()
            self.expand1x1, self.expand1x1_activation = nn.Conv2d(squeezed, expanded, 1), nn.ReLU()
            self.expand3x3, self.expand3x3_activation = nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU()

        def forward(self, x: Any) -> Any:
            x = self.squeeze_activation(self.squeeze(x))
            one = self.expand1x1_activation(self.expand1x1(x))
            return torch.cat([one, self.expand3x3_activation(self.expand3x3(x))], 1)

    class SqueezeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
            self.features = nn.Sequential(
                nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(),
                Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192),
                Fire(384, 64, 256), Fire(512, 64, 256),
            )  # fmt: skip
            final = nn.Conv2d(512, 1000, 1)
            self.classifier = nn.Sequential(nn.Dropout(), final, nn.ReLU(), nn.AdaptiveAvgPool2d(1))

        def forward(self, x: Any) -> Any:
            return self.classifier(self.features(x)).flatten(1)

    net = SqueezeNet().eval()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return net


class _StandIn(types.ModuleType):
    """A package whose every name is ``object``."""

    __path__: list[str] = []  # noqa: RUF012 - modules have it so

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def stand_in_for_torchvision() -> None:
    """Empty modules where torchvision is missing: the peers import it, for pictures and models that are not used."""
    if "torchvision" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except ImportError:
            for name in ("", ".transforms", ".transforms.functional", ".models", ".models.resnet", ".models.vgg"):
                sys.modules[f"torchvision{name}"] = _StandIn(f"torchvision{name}")


def _gradcam_package() -> Any:
    stand_in_for_torchvision()
    import pytorch_grad_cam

    return pytorch_grad_cam


def peer_methods(
    state: dict[str, np.ndarray], f: Any, x: Any, options: dict[str, dict[str, Any]]
) -> dict[str, Callable[[], np.ndarray]]:
    """Each peer's way to explain the batch ``x``, by our name of the method.

    Args:
      state: the weights of both networks.
      f: our network with them.
      x: images ``[n h w 3]``.
      options: what our methods are called with (counts and batch sizes are taken over).

    Raises:
      SystemExit: the peers are not installed.
      AssertionError: the two sides do not compute the same: logits, gradient, guided back-propagation, Grad-CAM.
    """
    try:
        import captum.attr as ca
        import torch

        gc = _gradcam_package()
    except ImportError as error:
        raise SystemExit(f"{error}: pip install '.[peers]'") from error
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    import jaxsal as js

    torch.set_num_threads(os.cpu_count() or 1)
    net = squeezenet(state)
    images = torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))
    n, batch = len(images), options["score_cam"]["batch_size"]
    layer, targets = [net.features[-1]], [ClassifierOutputTarget(TARGET)] * n

    def captum(method: Any, **more: Any) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            leaf = images.clone().requires_grad_()
            return method.attribute(leaf, target=TARGET, **more).detach().numpy().transpose(0, 2, 3, 1)

        return call

    def cam(name: str) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            with getattr(gc, name)(model=net, target_layers=layer) as method:
                method.batch_size = batch
                return method(input_tensor=images, targets=targets)

        return call

    steps = options["integrated_gradients"]
    smooth = options["smooth_gradient"]
    calls = {
        "gradient": captum(ca.Saliency(net), abs=False),
        "input_x_gradient": captum(ca.InputXGradient(net)),
        "integrated_gradients": captum(
            ca.IntegratedGradients(net), n_steps=steps["num_steps"], internal_batch_size=max(steps["batch_size"], n)
        ),
        "smooth_gradient": captum(
            ca.NoiseTunnel(ca.Saliency(net)), nt_samples=smooth["num_samples"], stdevs=0.15, abs=False,
            nt_samples_batch_size=max(smooth["batch_size"] // n, 1),
        ),
        "guided_backprop": captum(ca.GuidedBackprop(net)),
        "deconvnet": captum(ca.Deconvolution(net)),
        "guided_grad_cam": captum(ca.GuidedGradCam(net, net.features[-1])),
        "grad_cam": cam("GradCAM"),
        "grad_cam_pp": cam("GradCAMPlusPlus"),
        "xgrad_cam": cam("XGradCAM"),
        "hires_cam": cam("HiResCAM"),
        "layer_cam": cam("LayerCAM"),
        "score_cam": cam("ScoreCAM"),
        "ablation_cam": cam("AblationCAM"),
        "eigen_cam": cam("EigenCAM"),
        "eigen_grad_cam": cam("EigenGradCAM"),
        "kpca_cam": cam("KPCA_CAM"),
        "fem": cam("FEM"),
    }  # fmt: skip
    with torch.no_grad():
        _same("logits", net(images).numpy(), f(x))
    for name, method in {
        "gradient": js.gradient,
        "guided_backprop": js.guided_backprop,
        "grad_cam": js.grad_cam,
    }.items():
        _same(name, calls[name](), method(f, x, TARGET))
    return calls


def _same(what: str, theirs: Any, ours: Any) -> None:
    a, b = np.asarray(theirs, np.float64).ravel(), np.asarray(ours, np.float64).ravel()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine > 0.999, f"{what}: the two sides differ (cosine {cosine:.4f}); a comparison would mean nothing"
