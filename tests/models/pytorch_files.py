"""PyTorch's files made by hand: an assembler of pickles, and the two formats around them."""

import io
import struct
import zipfile
from typing import NamedTuple

import numpy as np


class Name(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Name
    arguments: tuple


class Reference(NamedTuple):
    stated: tuple


class Raw(NamedTuple):
    opcodes: bytes


def encode(value) -> bytes:
    """Opcodes that leave ``value`` on the stack."""
    match value:
        case Raw(opcodes):
            return opcodes
        case Name(module, name):
            return b"c" + f"{module}\n{name}\n".encode()
        case Call(function, arguments):
            return encode(function) + encode(arguments) + b"R"
        case Reference(stated):
            return encode(stated) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(16, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(k) + encode(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


def pickle_of(value) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


def storage(key="0", total=6, kind=("torch", "FloatStorage"), *view) -> Reference:
    return Reference(("storage", Name(*kind), key, "cpu", total, *view))


def tensor(of=None, offset=0, shape=(2, 3), strides=(3, 1), function="_rebuild_tensor_v2", *more) -> Call:
    hooks = Call(Name("collections", "OrderedDict"), ())
    tail = () if function == "_rebuild_tensor" else (False, hooks, *more)
    of = storage() if of is None else of
    return Call(Name("torch._utils", function), (of, offset, shape, strides, *tail))


SIX = np.arange(6, dtype=np.float32).tobytes()


def write_zip(path, content, records=None, *, compression=zipfile.ZIP_STORED, prefix="archive/", byteorder=b"little"):
    """``content`` is a value to pickle, or the bytes of a pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(prefix + "data.pkl", content if isinstance(content, bytes) else pickle_of(content))
        file.writestr(prefix + "byteorder", byteorder)
        for key, data in ({"0": SIX} if records is None else records).items():
            file.writestr(f"{prefix}data/{key}", data)
        file.writestr(prefix + "version", b"3\n")
    return path


def legacy_bytes(content, records=None, *, little=True, magic=0x1950A86A20F9469CFC6C, keys=None) -> bytes:
    """``records``: key -> (number of elements, bytes)."""
    records = {"0": (6, SIX)} if records is None else records
    stream = io.BytesIO()
    about = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for value in (magic, 1001, about, content, list(records) if keys is None else keys):
        stream.write(value if isinstance(value, bytes) else pickle_of(value))
    for count, data in records.values():
        stream.write(struct.pack("<q", count) + data)
    return stream.getvalue()


def write_legacy(path, content, records=None, **options):
    path.write_bytes(legacy_bytes(content, records, **options))
    return path
