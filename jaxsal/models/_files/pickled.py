"""State dicts from PyTorch's own files, without PyTorch, and without running anything that is in them.

Two formats: a zip archive of one pickle and a record for each storage (PyTorch 1.6 on), and before that several
pickles followed by the storages. In both, a pickle describes tensors as views of storages; it is read by a machine that
knows nothing else (``_unpickler``), and every view is checked against its storage before it is made.

References:
  pytorch/torch/serialization.py, ``_legacy_save`` and ``_save``; pytorch/torch/_utils.py, ``_rebuild_tensor_v2``.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsal._checks import message
from jaxsal.models._files.unpickler import Rebuild, fill, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Tensors whose elements overlap (expanded ones) may be larger than their storage, but no larger than this.
_MAX_OVERLAPPING = 1 << 24
_MAX_RANK = 32
_HINT = "Only tensors are read: save torch.save(model.state_dict(), path), or convert to safetensors."

_STORAGES: dict[str, Any] = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
}
# Number formats that came after the typed storages: the tensor states them.
_DTYPES: dict[str, Any] = {
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
    """A run of numbers: ``size`` of them from ``start``, of the ``total`` that the file has under ``key``."""

    key: str
    dtype: np.dtype
    total: int
    start: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, record: Any) -> np.ndarray:
        """The array, a read-only view of the bytes of the storage."""
        storage = self.storage
        if len(record) != storage.total * storage.dtype.itemsize:
            expected = f"{storage.total} x {storage.dtype}"
            raise ValueError(f"the storage {storage.key!r:.50} has {len(record)} bytes instead of {expected}")
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        stop = storage.start + storage.size
        values = np.frombuffer(record, storage.dtype)[storage.start : stop].view(np.uint8)
        itemsize = self.dtype.itemsize
        strides = tuple(stride * itemsize for stride in self.strides)
        array = np.ndarray(self.shape, self.dtype, values, self.offset * itemsize, strides)
        # A file may hold other bytes than 0 and 1, of which NumPy makes booleans that are neither.
        return array.view(np.uint8) != 0 if self.dtype == np.bool_ else array


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _storage(stated: Any) -> _Storage:
    """The storage that a persistent id stands for."""
    if type(stated) is not tuple or len(stated) not in (5, 6) or stated[0] != "storage":
        raise ValueError("a reference that is not to a storage")
    _, dtype, key, _, total, *view = stated
    if not (isinstance(dtype, np.dtype) and isinstance(key, str) and _is_count(total)):
        raise ValueError("a storage that is not (type, key, place, size)")
    start, size = 0, total
    if view and view[0] is not None:
        _, start, size = view[0]
    if not (_is_count(start) and _is_count(size) and start + size <= total):
        raise ValueError(f"a part of the storage {key!r:.50} that reaches beyond its end")
    return _Storage(key, dtype, total, start, size)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = False, hooks: Any = None, metadata: Any = None
) -> _Tensor:
    """``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    return _typed_tensor(storage, offset, shape, strides, grad, hooks, getattr(storage, "dtype", None), metadata)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, metadata: Any = None
) -> _Tensor:
    """``torch._utils._rebuild_tensor_v3``: a tensor of a number format that its storage does not have."""
    if not (isinstance(storage, _Storage) and isinstance(dtype, np.dtype)) or metadata:
        raise ValueError("a tensor without a storage, or one that is conjugated or negated")
    if storage.dtype != dtype and (storage.dtype != np.uint8 or storage.size % dtype.itemsize):
        raise ValueError(f"a tensor of {dtype} in {storage.size} x {storage.dtype}")
    if not (type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= _MAX_RANK):
        raise ValueError("a tensor without a shape, or with more than 32 axes")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError("a tensor whose offset, shape or strides are not natural numbers")
    size = storage.size * storage.dtype.itemsize // dtype.itemsize
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
    if count and last >= size:
        raise ValueError(f"a tensor that reaches to element {last} of a storage of {size}")
    if count > max(size, _MAX_OVERLAPPING):
        raise ValueError(f"a tensor of {count} elements in a storage of {size}")
    return _Tensor(storage, dtype, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise ValueError("an ordered dictionary that is not made of pairs")
    result: dict[Any, Any] = {}
    fill(result, items)
    return result


def _size(lengths: Any = ()) -> tuple[int, ...]:
    if not isinstance(lengths, list | tuple):
        raise ValueError("a size that is not made of numbers")
    return tuple(lengths)


_TABLE: dict[str, Any] = {
    "collections OrderedDict": Rebuild(_ordered_dict),
    "torch Size": Rebuild(_size),
    "torch._utils _rebuild_tensor": Rebuild(_tensor),
    "torch._utils _rebuild_tensor_v2": Rebuild(_tensor),
    "torch._utils _rebuild_tensor_v3": Rebuild(_typed_tensor),
    "torch._utils _rebuild_parameter": Rebuild(_parameter),
    "torch.storage UntypedStorage": np.dtype(np.uint8),
    **{f"torch {name}Storage": np.dtype(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch {name}": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a file that ``torch.save`` wrote.

    A state dict inside a training checkpoint is found: under "state_dict", "model_state_dict" or "model", or as the
    only entry that holds nothing but tensors. All else in the file is left aside; what a file would run is refused.

    Args:
      path: a ``.pth``, ``.pt``, ``.th`` or ``.bin`` file of either format.

    Returns:
      Read-only arrays by name, with the shapes and number formats of the tensors.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not a PyTorch file, a damaged one, one that needs more than tensors (the message has the name of the
        first such thing), tensors that reach beyond their storages, or no state dict.

    References:
      pytorch/torch/serialization.py.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(message("weights", f"no file {path}", "the path of a PyTorch file"))
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return _read_zip(path) if zipped else _read_legacy(path)
    except (ValueError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(message(f"weights {path}", f"{error}", "a PyTorch file of a state dict", _HINT)) from error


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"a zip archive with {len(pickles)} files data.pkl instead of one")
        prefix = pickles[0].removesuffix("data.pkl")
        left = path.stat().st_size

        def record(name: str) -> bytes:
            nonlocal left
            if prefix + name not in archive.NameToInfo:
                raise ValueError(f"an archive without the record {name!r:.50}")
            info = archive.getinfo(prefix + name)
            # PyTorch stores records as they are. So all of them together are no larger than the file, whatever it says.
            left -= info.file_size
            if info.compress_type != zipfile.ZIP_STORED or left < 0:
                raise ValueError("compressed or overlapping records")
            try:
                return archive.read(info)
            except OSError as error:  # the archive may point outside the file
                raise ValueError(f"a record {name!r:.50} that cannot be read ({error})") from error

        if prefix + "byteorder" in archive.NameToInfo and record("byteorder") != b"little":
            raise ValueError("numbers in big-endian order")
        tensors = _state_dict(read_pickle(io.BytesIO(record("data.pkl")), _TABLE, _storage))
        keys = {tensor.storage.key for tensor in tensors.values()}
        return _arrays(tensors, {key: record(f"data/{key}") for key in keys})


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    stream = io.BytesIO(data)
    storages: dict[str, _Storage] = {}

    def storage(stated: Any) -> _Storage:
        result = _storage(stated)
        known = storages.setdefault(result.key, result)
        if (known.dtype, known.total) != (result.dtype, result.total):
            raise ValueError(f"two accounts of the storage {result.key!r:.50}")
        return result

    def next_pickle() -> Any:
        return read_pickle(stream, _TABLE, storage)

    # A short file, or one of another kind, fails here.
    if data[:1] != b"\x80" or next_pickle() != _MAGIC or next_pickle() != _PROTOCOL:
        raise ValueError("a file without the marks of PyTorch")
    about = next_pickle()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("numbers in big-endian order")
    content = next_pickle()
    keys = next_pickle()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != {*storages}:
        raise ValueError("a list of storages that does not fit the tensors")
    records = {}
    position = stream.tell()
    for key in keys:
        size = int.from_bytes(data[position : position + 8], "little")
        start, position = position + 8, position + 8 + size * storages[key].dtype.itemsize
        if size != storages[key].total or position > len(data):
            raise ValueError("a file that ends within its storages")
        records[key] = memoryview(data)[start:position]
    return _arrays(_state_dict(content), records)


def _arrays(tensors: Mapping[str, _Tensor], records: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: tensor.of(records[tensor.storage.key]) for name, tensor in tensors.items()}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """The state dict in what was saved."""
    if not isinstance(content, dict):
        raise ValueError(f"an object of type {type(content).__name__}")
    if _is_state_dict(content):
        return content
    candidates = [key for key, value in content.items() if _is_state_dict(value)]
    named = [key for key in ("state_dict", "model_state_dict", "model") if key in candidates]
    if named or len(candidates) == 1:
        return content[(named or candidates)[0]]
    names = ", ".join(f"{key!r:.50}" for key in list(content)[:8])
    what = "several state dicts" if candidates else "no state dict"
    raise ValueError(f"{what} among the entries {names}")


def _is_state_dict(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, _Tensor) for name, value in content.items())
