"""Writes pytorch_zip.pt and pytorch_legacy.pt; needs PyTorch: ``python pytorch_fixtures.py``."""

from pathlib import Path

import torch

grid = torch.arange(24).reshape(2, 3, 4)
tensors = {
    **{name: grid.to(getattr(torch, name)) for name in ("float32", "float16", "int64", "bfloat16", "uint8")},
    "bool": grid % 2 == 0,
    "transposed": grid.float().permute(2, 0, 1),
    "slice": grid.float()[:, 1:, ::2],
    "expanded": grid.float()[:1].expand(5, 3, 4),
    "scalar": torch.tensor(7.0),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(grid.float()),
}
for name in ("zip", "legacy"):
    torch.save(tensors, Path(__file__).with_name(f"pytorch_{name}.pt"), _use_new_zipfile_serialization=name == "zip")
