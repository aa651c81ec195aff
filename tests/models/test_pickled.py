"""PyTorch's files without PyTorch: what they hold, and what they may not do."""

import builtins
import os
import pickle
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from models.pytorch_files import (
    SIX,
    Call,
    Name,
    Raw,
    Reference,
    encode,
    legacy_bytes,
    pickle_of,
    storage,
    tensor,
    write_legacy,
    write_zip,
)

from jaxsal.models._files import pickled
from jaxsal.models._files import unpickler as _unpickler

WRITERS = [write_zip, write_legacy]
both = pytest.mark.parametrize("write", WRITERS, ids=["zip", "legacy"])


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        pickled.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# What they hold


def test_legacy_file_equals_its_twin(shared_path):
    from safetensors.numpy import load_file

    arrays = pickled.read(shared_path("data", "weights", "resnet20-12fca82f.th"))
    twin = load_file(shared_path("data", "weights", "cifar_resnet20.safetensors"))
    assert {name.removeprefix("module.") for name in arrays} == set(twin)
    for name, array in twin.items():
        other = arrays[f"module.{name}"]
        assert other.dtype == array.dtype
        np.testing.assert_array_equal(other, array)


@both
def test_a_state_dict(write, tmp_path):
    state = {"a.weight": tensor(), "a.bias": tensor(None, 1, (2,), (1,))}
    arrays = pickled.read(write(tmp_path / "w.pth", state))
    assert list(arrays) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(arrays["a.weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["a.bias"], [1, 2])
    assert all(array.dtype == np.float32 and not array.flags.writeable for array in arrays.values())


@both
def test_ordered_dict_with_attributes_and_parameters(write, tmp_path):
    # torch.nn.Module.state_dict() is an OrderedDict with an attribute _metadata; the names may share tensors.
    first = Call(
        Name("torch._utils", "_rebuild_parameter"), (tensor(), True, Call(Name("collections", "OrderedDict"), ()))
    )
    pairs = b"(" + encode("a") + encode(first) + b"q\x07" + encode("b") + b"h\x07" + b"u"
    metadata = encode({"_metadata": {"": {"version": 1}}})
    content = Raw(encode(Call(Name("collections", "OrderedDict"), ())) + pairs + metadata + b"b")
    arrays = pickled.read(write(tmp_path / "w.pth", content))
    np.testing.assert_array_equal(arrays["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(arrays["b"], arrays["a"])


@both
def test_ordered_dict_from_pairs_and_size(write, tmp_path):
    of_size = tensor(None, 0, Call(Name("torch", "Size"), ([3, 2],)), (2, 1), "_rebuild_tensor")
    content = Call(Name("collections", "OrderedDict"), ([["a", of_size]],))
    np.testing.assert_array_equal(pickled.read(write(tmp_path / "w.pth", content))["a"], np.arange(6).reshape(3, 2))


@both
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (3, 2), (1, 3)),
        (1, (2, 2), (3, 1)),
        (5, (), ()),
        (2, (4, 3), (0, 1)),
        (6, (0, 3), (3, 1)),
        (1, (2, 2), (1, 1)),
    ],
)
def test_strides_and_offsets(write, tmp_path, offset, shape, strides):
    arrays = pickled.read(write(tmp_path / "w.pth", {"a": tensor(None, offset, shape, strides)}))
    expected = np.zeros(shape, np.float32)
    for index in np.ndindex(shape):
        expected[index] = offset + sum(i * s for i, s in zip(index, strides))
    assert arrays["a"].shape == shape
    np.testing.assert_array_equal(arrays["a"], expected)


DTYPES = {
    "Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
    "ComplexFloat": np.complex64, "ComplexDouble": np.complex128,
}  # fmt: skip


@pytest.mark.parametrize("kind", DTYPES)
def test_number_formats(kind, tmp_path):
    values = np.array([0, 1, 2, 3, 4, 5]).astype(DTYPES[kind])
    content = {"a": tensor(storage("0", 6, ("torch", f"{kind}Storage")))}
    for path in (
        write_zip(tmp_path / "zip.pth", content, {"0": values.tobytes()}),
        write_legacy(tmp_path / "legacy.pth", content, {"0": (6, values.tobytes())}),
    ):
        array = pickled.read(path)["a"]
        assert array.dtype == DTYPES[kind]
        np.testing.assert_array_equal(array, values.reshape(2, 3))


@pytest.mark.parametrize("name", ["uint16", "uint32", "float8_e4m3fn", "float8_e5m2"])
def test_number_formats_that_the_tensor_states(name, tmp_path):
    dtype = np.dtype(getattr(np, name, None) or getattr(ml_dtypes, name))
    values = np.array([0, 1, 2, 3, 4, 5]).astype(dtype)
    of = storage("0", values.nbytes, ("torch.storage", "UntypedStorage"))
    content = {"a": tensor(of, 0, (2, 3), (3, 1), "_rebuild_tensor_v3", Name("torch", name))}
    array = pickled.read(write_zip(tmp_path / "w.pth", content, {"0": values.tobytes()}))["a"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array.astype(float), values.astype(float).reshape(2, 3))


def test_booleans_are_zero_or_one(tmp_path):
    content = {"a": tensor(storage("0", 6, ("torch", "BoolStorage")))}
    array = pickled.read(write_zip(tmp_path / "w.pth", content, {"0": bytes([0, 1, 2, 255, 0, 7])}))["a"]
    assert array.view(np.uint8).tolist() == [[0, 1, 1], [1, 0, 1]]


def test_parts_of_storages_in_legacy_files(tmp_path):
    part = storage("0", 6, ("torch", "FloatStorage"), ("part", 2, 3))
    path = write_legacy(tmp_path / "w.pth", {"a": tensor(part, 1, (2,), (1,)), "b": tensor()})
    np.testing.assert_array_equal(pickled.read(path)["a"], [3, 4])
    beyond = storage("0", 6, ("torch", "FloatStorage"), ("part", 4, 3))
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor(beyond, 0, (1,), (1,))}), "beyond its end")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor(part, 0, (4,), (1,))}), "element 3 of a storage of 3")


@pytest.mark.parametrize("name", ["pytorch_zip.pt", "pytorch_legacy.pt"])
def test_files_that_pytorch_wrote(name):
    """Written by PyTorch 2.13 (see ``pytorch_fixtures.py``)."""
    arrays = pickled.read(Path(__file__).with_name(name))
    grid = np.arange(24).reshape(2, 3, 4)
    expected = {
        "float32": grid.astype(np.float32), "float16": grid.astype(np.float16), "int64": grid.astype(np.int64),
        "bfloat16": grid.astype(ml_dtypes.bfloat16), "bool": grid % 2 == 0, "uint8": grid.astype(np.uint8),
        "transposed": grid.transpose(2, 0, 1).astype(np.float32), "slice": grid[:, 1:, ::2].astype(np.float32),
        "expanded": np.broadcast_to(grid[:1].astype(np.float32), (5, 3, 4)), "scalar": np.float32(7),
        "empty": np.zeros((0, 3), np.float32), "parameter": grid.astype(np.float32),
    }  # fmt: skip
    assert set(arrays) == set(expected)
    for key, value in expected.items():
        assert arrays[key].dtype == value.dtype, key
        np.testing.assert_array_equal(arrays[key], value, key)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_state_dict_in_a_checkpoint(key, tmp_path):
    state = {"a": tensor()}
    content = {
        "epoch": 3,
        "best": 0.5,
        key: state,
        "optimizer": {"state": {0: {"step": tensor()}}, "groups": [{"lr": 0.1}]},
    }
    assert list(pickled.read(write_zip(tmp_path / "w.pth", content))) == ["a"]


def test_named_state_dict_before_others(tmp_path):
    content = {"ema": {"b": tensor()}, "state_dict": {"a": tensor()}}
    assert list(pickled.read(write_zip(tmp_path / "w.pth", content))) == ["a"]
    content["weights"] = content.pop("state_dict")
    refused(write_zip(tmp_path / "w.pth", content), "several state dicts among the entries 'ema', 'weights'")


@both
@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"a": tensor(), "epoch": 3}, "no state dict among the entries 'a', 'epoch'"),
        ({1: tensor()}, "no state dict"),
        ({"a": 1}, "no state dict among the entries 'a'"),
        ([tensor()], "type list"),
        (tensor(), "type _Tensor"),
    ],
)
def test_no_state_dict(write, content, match, tmp_path):
    records = None if "_rebuild" in repr(content) else {}
    refused(write(tmp_path / "w.pth", content, records), match)


# What they may not do


class Gadget:
    """Pickles to the call of anything."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def gadgets(marker: Path):
    command = f"touch {marker}"
    return {
        "os.system": Gadget(os.system, command),
        "eval": Gadget(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Gadget(exec, f"open({str(marker)!r}, 'w')"),
        "open": Gadget(open, str(marker), "w"),
        "popen": Gadget(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Gadget(getattr, os, "system"),
        "import": Gadget(builtins.__import__, "antigravity"),
        "path": Gadget(Path.touch, marker),
        "nested": Gadget(pickle.loads, pickle.dumps(Gadget(os.system, command))),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", gadgets(Path("x")))
def test_calls_are_refused_and_nothing_runs(name, protocol, tmp_path):
    marker = tmp_path / "made"
    if name == "getattr":  # modules do not pickle
        evil = Raw(encode(Call(Name("builtins", "getattr"), (Name("os", "sys"), "path"))))
        data = pickle_of(evil)
    else:
        data = pickle.dumps({"a": gadgets(marker)[name]}, protocol)
    for path in (write_zip(tmp_path / "zip.pth", data), write_legacy(tmp_path / "legacy.pth", data)):
        refused(path, "not on the list of what tensors need")
    (tmp_path / "first.pth").write_bytes(data)  # in place of the marks of the format
    refused(tmp_path / "first.pth", "not on the list|without the marks")
    assert not marker.exists()
    # The same bytes do their work where nobody looks: the test above can fail.
    if name == "open":
        pickle.loads(data)
        assert marker.exists()


@both
@pytest.mark.parametrize(
    "name",
    [
        ("torch", "load"), ("torch.serialization", "load"), ("torch.hub", "load"), ("torch.jit", "load"),
        ("torch._utils", "_rebuild_qtensor"), ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("jaxsal.models._files.pickled", "read"), ("numpy", "load"), ("numpy._core.multiarray", "_reconstruct"),
        ("collections", "OrderedDict.fromkeys"), ("torch.storage", "_load_from_bytes"), ("copyreg", "_reconstructor"),
        ("argparse", "Namespace"), ("torch.nn.modules.linear", "Linear"), ("torch", "FloatStorage.__init__"),
    ],
)  # fmt: skip
def test_other_names_are_refused_by_name(write, name, tmp_path):
    refused(write(tmp_path / "w.pth", {"a": Call(Name(*name), ("x",))}), ".".join(name).replace(".", r"\."))


EMPTY_DICT = encode(Call(Name("collections", "OrderedDict"), ()))
HOSTILE = {
    "call of a string": encode("os.system") + encode(("x",)) + b"R",
    "call of a storage type": encode(Name("torch", "FloatStorage")) + encode((6,)) + b"R",
    "call without a tuple": encode(Name("torch", "Size")) + encode([[1]]) + b"R",
    "wrong number of arguments": encode(Call(Name("torch._utils", "_rebuild_tensor_v2"), (1,))),
    "tensor of a string": encode(tensor("storage")),
    "attributes of a function": encode(Name("torch._utils", "_rebuild_tensor_v2"))
    + encode({"__defaults__": ()})
    + b"b",
    "attributes of a storage type": encode(Name("torch", "FloatStorage")) + encode({"kind": 1}) + b"b",
    "new object": encode(Name("collections", "OrderedDict")) + encode(()) + b"\x81",
    "instance": b"(ios\nsystem\n",
    "object": b"(" + encode(Name("torch", "Size")) + b"o",
    "extension": b"\x82\x01",
    "buffer": b"\x97",
    "text reference": b"Pstorage\n",
    "name of numbers": encode(1) + encode(2) + b"\x93",
    "reference to nothing": encode(Reference(("module", 1, 2, 3, 4))),
    "storage of another type": encode(Reference(("storage", "float", "0", "cpu", 6))),
    "negative storage": encode(tensor(storage("0", -6))),
    "key that is a tuple": b"}" + encode((1, 2)) + encode(1) + b"s",
    "key that is a list": b"}" + encode([1, 2]) + encode(1) + b"s",
    "odd number of items": b"}(" + encode("a") + b"u",
    "append to a dictionary": b"}" + encode(1) + b"a",
    "item of a list": b"]" + encode(1) + encode(2) + b"s",
    "memory of nothing": b"h\x05",
    "no mark": encode(1) + b"t",
    "nothing": b"",
    "mark": b"(",
    "size of a string": encode(Call(Name("torch", "Size"), ("23",))),
    "shape of a list": encode(tensor(None, 0, [2, 3], (3, 1))),
    "boolean shape": encode(tensor(None, 0, (True, True), (1, 1))),
    "float shape": encode(tensor(None, 0, (2.0, 3), (3, 1))),
    "conjugated": encode(tensor(None, 0, (2, 3), (3, 1), "_rebuild_tensor_v2", {"conj": True})),
}


@both
@pytest.mark.parametrize("what", HOSTILE)
def test_malformed_pickles_are_refused(write, what, tmp_path):
    data = b"\x80\x02}" + encode("a") + HOSTILE[what] + b"s."
    refused(write(tmp_path / "w.pth", data), "got ")


@both
@pytest.mark.parametrize(
    ("offset", "shape", "strides", "match"),
    [
        (0, (7,), (1,), "element 6 of a storage of 6"),
        (1, (2, 3), (3, 1), "element 6 "),
        (0, (2, 3), (4, 1), "element 6 "),
        (6, (), (), "element 6 "),
        (2**62, (1,), (1,), "reaches to element"),
        (0, (2**62, 2**62), (0, 0), "elements in a storage of 6"),
        (0, (2**40,), (0,), "elements in a storage of 6"),
        (0, (2**63, 2), (2**63, 1), "reaches to element"),
        (-1, (2,), (1,), "natural numbers"),
        (5, (2,), (-1,), "natural numbers"),
        (0, (-2, -3), (3, 1), "natural numbers"),
        (0, (2, 3), (3,), "without a shape"),
        (0, (1,) * 33, (0,) * 33, "more than 32 axes"),
    ],
)
def test_views_stay_in_their_storage(write, offset, shape, strides, match, tmp_path):
    refused(write(tmp_path / "w.pth", {"a": tensor(None, offset, shape, strides)}), match)


def test_storages_must_be_as_long_as_stated(tmp_path):
    for data in (SIX[:-1], SIX + b"\0", b""):
        refused(write_zip(tmp_path / "w.pth", {"a": tensor()}, {"0": data}), r"bytes instead of 6 x float32")
    refused(write_zip(tmp_path / "w.pth", {"a": tensor(storage("../0"))}), r"without the record 'data/\.\./0'")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, {"0": (5, SIX[:-4])}), "ends within its storages")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, {"0": (-1, SIX)}), "ends within its storages")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, {}), "does not fit the tensors")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, keys=["0", "1"]), "does not fit the tensors")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, keys=[["0"]]), "does not fit the tensors")
    two = {"a": tensor(), "b": tensor(storage("0", 3, ("torch", "DoubleStorage")), 0, (3,), (1,))}
    refused(write_legacy(tmp_path / "w.pth", two), "two accounts")


def test_untyped_storage_must_hold_whole_numbers(tmp_path):
    of = storage("0", 7, ("torch.storage", "UntypedStorage"))
    content = {"a": tensor(of, 0, (3,), (1,), "_rebuild_tensor_v3", Name("torch", "uint16"))}
    refused(write_zip(tmp_path / "w.pth", content, {"0": bytes(7)}), "uint16 in 7 x uint8")
    content = {"a": tensor(None, 0, (3,), (1,), "_rebuild_tensor_v3", Name("torch", "uint16"))}
    refused(write_zip(tmp_path / "w.pth", content), "uint16 in 6 x float32")


@both
def test_every_truncation_is_refused(write, tmp_path):
    whole = write(tmp_path / "whole.pth", {"a": tensor()}).read_bytes()
    path = tmp_path / "w.pth"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "got ")


def test_changed_bytes_never_run_and_never_crash(tmp_path):
    """Every byte of both formats, changed: the arrays, or one clear error."""
    for write in WRITERS:
        whole = bytearray(write(tmp_path / "whole.pth", {"state_dict": {"a": tensor()}, "b": 1.5}).read_bytes())
        path = tmp_path / "w.pth"
        accepted = 0
        for position, mask in enumerate(np.random.default_rng(0).integers(1, 256, len(whole))):
            changed = whole.copy()
            changed[position] ^= int(mask)
            path.write_bytes(changed)
            try:
                arrays = pickled.read(path)
                accepted += 1
                assert all(array.size <= 6 for array in arrays.values())
            except ValueError as error:
                assert str(path) in str(error)
        assert accepted  # the numbers themselves, for one


@pytest.mark.parametrize("opening", [b"]" * 60_000, b"(" * 60_000, b"}" * 60_000, b"K\x01" + b"\x85" * 60_000])
@both
def test_deep_nesting(write, opening, tmp_path):
    closing = b"a" * (len(opening) - 1) if opening[:1] == b"]" else b""
    refused(write(tmp_path / "w.pth", b"\x80\x02" + opening + closing + b"."), "got ")


def test_repeated_references_do_not_multiply(tmp_path):
    """A list of two references to a list of two references, and so on 200 times."""
    data = b"\x80\x02]" + b"".join(b"q\x01](h\x01h\x01e" for _ in range(200)) + b"."
    for path in (write_zip(tmp_path / "w.pth", data), write_legacy(tmp_path / "w2.pth", data, keys=data)):
        refused(path, "type list|does not fit")
    as_key = b"\x80\x02)" + b"".join(b"q\x01h\x01h\x01\x86" for _ in range(200)) + b"q\x01}h\x01K\x01s."
    refused(write_zip(tmp_path / "w.pth", as_key), "key of type tuple")
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor()}, keys=data), "does not fit the tensors")


@both
def test_operations_are_limited(write, tmp_path, monkeypatch):
    path = write(tmp_path / "w.pth", {"a": tensor()})
    pickled.read(path)
    monkeypatch.setattr(_unpickler, "MAX_OPERATIONS", 30)
    refused(path, "more than 30 operations")


def test_compressed_and_overlapping_records_are_refused(tmp_path):
    zeros = bytes(4 << 24)
    content = {"a": tensor(storage("0", 1 << 24), 0, (1 << 24,), (1,))}
    path = write_zip(tmp_path / "bomb.pth", content, {"0": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < len(zeros) / 100
    tracemalloc.start()
    refused(path, "compressed or overlapping records")
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    # Twenty records in the central directory, all of them the same bytes of the file.
    content = {f"a{i}": tensor(storage(str(i), 1000), 0, (1000,), (1,)) for i in range(20)}
    with zipfile.ZipFile(tmp_path / "overlap.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle_of(content))
        file.writestr("archive/data/0", bytes(4000))
        first = file.getinfo("archive/data/0")
        for i in range(1, 20):
            twin = zipfile.ZipInfo(f"archive/data/{i}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            file.filelist.append(twin)
            file.NameToInfo[twin.filename] = twin
    refused(tmp_path / "overlap.pth", "overlapping|differ")


def test_names_in_archives_never_become_paths(tmp_path):
    path = write_zip(tmp_path / "w.pth", {"a": tensor()}, prefix="../../escape/")
    np.testing.assert_array_equal(pickled.read(path)["a"], np.arange(6).reshape(2, 3))
    assert [file.name for file in tmp_path.rglob("*")] == ["w.pth"]
    with zipfile.ZipFile(tmp_path / "two.pth", "w") as file:
        file.writestr("a/data.pkl", pickle_of({}))
        file.writestr("b/data.pkl", pickle_of({}))
    refused(tmp_path / "two.pth", "2 files data.pkl instead of one")


def test_other_files(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(FileNotFoundError, match=r"w\.pth"):
        pickled.read(path)
    with pytest.raises(FileNotFoundError):
        pickled.read(tmp_path)
    for data in (b"", b"\x80", b"hello", pickle.dumps({"a": 1}), b"PK\x03\x04", legacy_bytes({}, magic=5)):
        path.write_bytes(data)
        refused(path, "got ")
    refused(write_legacy(path, {"a": tensor()}, little=False), "big-endian")
    refused(write_zip(path, {"a": tensor()}, byteorder=b"big"), "big-endian")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    refused(tmp_path / "arrays.npz", "0 files data.pkl")
    whole = bytearray(write_zip(path, {"a": tensor()}).read_bytes())
    whole[whole.index(SIX) + 4] ^= 1
    path.write_bytes(whole)
    refused(path, "CRC")
