"""Reads what torch.save wrote, without torch and without running anything: zip and legacy files, tensors as numpy arrays.

Also the reverse that Onestep needs: a safetensors writer, byte for byte that of src/common/safetensors_file.cpp.
"""
import hashlib
import io
import json
import os
import reprlib
import struct
import zipfile
from dataclasses import dataclass

import numpy as np

from safe_pickle import Call, Global, PersistentId, Refused, read_pickle

# dtype in safetensors -> (numpy type to hold the bytes, bytes an element)
DTYPES = {"F64": ("<f8", 8), "I64": ("<i8", 8), "F32": ("<f4", 4), "I32": ("<i4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2),
          "I16": ("<i2", 2), "BOOL": ("|b1", 1), "U8": ("|u1", 1), "I8": ("|i1", 1), "C64": ("<c8", 8), "U64": ("<u8", 8),
          "U32": ("<u4", 4), "U16": ("<u2", 2), "F8_E5M2": ("|u1", 1), "F8_E4M3": ("|u1", 1)}
STORAGES = {"DoubleStorage": "F64", "LongStorage": "I64", "FloatStorage": "F32", "IntStorage": "I32", "HalfStorage": "F16",
            "BFloat16Storage": "BF16", "ShortStorage": "I16", "BoolStorage": "BOOL", "ByteStorage": "U8", "CharStorage": "I8",
            "ComplexFloatStorage": "C64"}
TORCH_DTYPES = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "float16": "F16", "bfloat16": "BF16",
                "int16": "I16", "bool": "BOOL", "uint8": "U8", "int8": "I8", "complex64": "C64"}

# What a file of tensors may name.
TENSOR_NAMES = ({("torch", name) for name in STORAGES} | {("torch", name) for name in TORCH_DTYPES} |
                {("torch", "Size"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"),
                 ("torch._utils", "_rebuild_parameter"), ("torch.storage", "_load_from_bytes"),
                 ("torch.storage", "UntypedStorage"), ("torch.storage", "TypedStorage"), ("torch", "device"),
                 ("torch.serialization", "_get_layout"), ("collections", "OrderedDict"), ("builtins", "set"),
                 ("__builtin__", "set"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
                 ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
                 ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")})

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


short = reprlib.repr  # bounded in depth and length, whatever a file holds


@dataclass
class Tensor:
    """One tensor: `array` holds the values, in C order; bf16 as the 16 bits themselves."""

    dtype: str
    array: np.ndarray


@dataclass
class Storage:
    dtype: str
    data: np.ndarray = None  # one dimension


def numpy_dtype(value, where):
    """A dtype that the pickle describes -> numpy's; plain numbers only."""
    if isinstance(value, Call) and value.name == "numpy.dtype" and value.arguments and isinstance(value.arguments[0], str):
        text = value.arguments[0]
        order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
        if text in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8") and order in ("<", ">", "|", "="):
            return np.dtype(("" if order in "|=" else order) + text)
    raise Refused(f"{where}: expected a dtype of plain numbers, found {short(value)}")


class Resolver:
    """Turns Calls into data: tensors, dictionaries, numbers. `objects`: names whose Calls are kept for the caller to look into."""

    def __init__(self, where, storage_of, objects=()):
        self.where, self.storage_of, self.objects = where, storage_of, set(objects)
        self.done = {}

    def __call__(self, value):
        if isinstance(value, (Call, dict, list, tuple)):
            key = id(value)
            if key not in self.done:
                self.done[key] = (value, None)  # a value that holds itself sees None
                self.done[key] = (value, self.resolve(value))
            return self.done[key][1]
        return self.resolve(value)

    def resolve(self, value):
        if isinstance(value, dict):
            return {self.key(k): self(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self(v) for v in value]
        if isinstance(value, tuple):
            return tuple(self(v) for v in value)
        if isinstance(value, PersistentId):
            return self.storage_of(value.value)
        if isinstance(value, Call):
            return self.call(value)
        return value

    def key(self, key):
        key = self(key)
        if isinstance(key, (str, int, float, bool, bytes, type(None), tuple)):
            return key
        raise Refused(f"{self.where}: expected a plain key of a dictionary, found {short(key)}")

    def fail(self, name, expected, found):
        raise Refused(f"{self.where}: {name}: expected {expected}, found {short(found)}")

    def call(self, call):
        name = call.name
        if name in self.objects:
            call.arguments = tuple(self(a) for a in call.arguments)
            call.state = self(call.state)
            call.pairs = [(self.key(k), self(v)) for k, v in call.pairs]
            return call
        if name == "collections.OrderedDict":
            entries = self(call.arguments[0]) if call.arguments else []
            return dict([tuple(e) for e in entries] + [(self.key(k), self(v)) for k, v in call.pairs])
        if name in ("builtins.set", "__builtin__.set"):
            return set(self(call.arguments[0])) if call.arguments else set()
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self.tensor(name, [self(a) for a in call.arguments])
        if name == "torch._utils._rebuild_parameter":
            return self(call.arguments[0])
        if name == "torch.storage._load_from_bytes":
            data = self(call.arguments[0]) if len(call.arguments) == 1 else None
            if not isinstance(data, bytes):
                self.fail(name, "bytes", call.arguments)
            return load_legacy(io.BytesIO(data), self.where + ": nested storage", TENSOR_NAMES)
        if name == "torch.Size":
            return tuple(self(call.arguments[0]))
        if name.endswith("multiarray.scalar"):
            dtype = numpy_dtype(call.arguments[0], self.where)
            data = self(call.arguments[1])
            if not isinstance(data, bytes) or len(data) != dtype.itemsize:
                self.fail(name, f"{dtype.itemsize} bytes", data)
            return np.frombuffer(data, dtype)[0].item()
        if name.endswith("multiarray._reconstruct"):
            return self.array(call)
        if name == "_codecs.encode" and len(call.arguments) == 2 and call.arguments[1] == "latin1":
            return call.arguments[0].encode("latin1")
        return self.fail(name, "data that can be read", call.arguments)

    def array(self, call):
        state = call.state
        if not isinstance(state, tuple) or len(state) != 5:
            self.fail(call.name, "the state of an array", state)
        _, shape, dtype, fortran, data = state
        dtype, data = numpy_dtype(dtype, self.where), self(data)
        if not isinstance(data, bytes) or len(data) != dtype.itemsize * int(np.prod(shape, dtype=object)):
            self.fail(call.name, f"{shape} numbers of {dtype}", data)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    def tensor(self, name, arguments):
        if len(arguments) < 4 or not isinstance(arguments[0], Storage):
            self.fail(name, "storage, offset, size, stride", arguments)
        storage, offset, size, stride = arguments[:4]
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
            self.fail(name, "non-negative offset, size and stride", numbers)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else offset - 1
        if last >= len(storage.data):
            self.fail(name, f"an element below {len(storage.data)}", last)
        item = storage.data.itemsize
        view = np.lib.stride_tricks.as_strided(storage.data[offset:], size, [s * item for s in stride], writeable=False)
        return Tensor(storage.dtype, np.ascontiguousarray(view).reshape(size))


def storage_dtype(tag, where):
    if isinstance(tag, Global) and tag.module == "torch" and tag.name in STORAGES:
        return STORAGES[tag.name]
    raise Refused(f"{where}: storage: expected a type of {', '.join(sorted(STORAGES))}, found {tag}")


def persistent_storage(value, where):
    """('storage', type, key, location, numel[, view]) -> (dtype, key, numel)"""
    if (not isinstance(value, tuple) or len(value) < 5 or value[0] != "storage" or not isinstance(value[2], str) or
            not isinstance(value[4], int) or value[4] < 0):
        raise Refused(f"{where}: storage: expected ('storage', type, key, location, elements), found {short(value)}")
    if len(value) > 5 and value[5] is not None:
        raise Refused(f"{where}: storage {value[2]}: expected no view of another, found {short(value[5])}")
    return storage_dtype(value[1], where), value[2], value[4]


def take(data, dtype, numel, where):
    numpy_type, item = DTYPES[dtype]
    if len(data) != item * numel:
        raise Refused(f"{where}: expected {item * numel} bytes for {numel} elements of {dtype}, found {len(data)}")
    return np.frombuffer(data, numpy_type)


def load_zip(path, allowed, objects=()):
    """torch.save since 1.6: <name>/data.pkl and <name>/data/<key>."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(names) != 1:
                raise Refused(f"{path}: expected one */data.pkl, found {len(names)}")
            root = names[0][:-len("data.pkl")]
            order = root + "byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise Refused(f"{path}: byteorder: expected little, found {short(archive.read(order))}")
            storages = {}

            def storage_of(value):
                dtype, key, numel = persistent_storage(value, path)
                if key not in storages:
                    try:
                        data = archive.read(f"{root}data/{key}")
                    except KeyError:
                        raise Refused(f"{path}: {root}data/{key}: expected a storage, found none") from None
                    storages[key] = Storage(dtype, take(data, dtype, numel, f"{path}: {root}data/{key}"))
                if storages[key].dtype != dtype:
                    raise Refused(f"{path}: storage {key}: expected {storages[key].dtype}, found {dtype} too")
                return storages[key]

            value = read_pickle(io.BytesIO(archive.read(names[0])), f"{path}: {names[0]}", allowed)
            return Resolver(path, storage_of, objects)(value)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise Refused(f"{path}: expected a whole zip archive, found: {error}") from error


def load_legacy(stream, where, allowed, objects=()):
    """torch.save before 1.6: pickles of magic, protocol, system, value, keys; then each storage's count and data."""
    magic = read_pickle(stream, where, set())
    if magic != LEGACY_MAGIC:
        raise Refused(f"{where}: magic number: expected {LEGACY_MAGIC:#x}, found {short(magic)}")
    protocol = read_pickle(stream, where, set())
    if protocol != LEGACY_PROTOCOL:
        raise Refused(f"{where}: protocol: expected {LEGACY_PROTOCOL}, found {short(protocol)}")
    system = read_pickle(stream, where, set())
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused(f"{where}: system: expected little_endian, found {short(system)}")
    value = read_pickle(stream, where, allowed)
    keys = read_pickle(stream, where, set())
    storages = {}

    def storage_of(identifier):
        dtype, key, numel = persistent_storage(identifier, where)
        storage, known = storages.setdefault(key, (Storage(dtype), numel))
        if storage.dtype != dtype or known != numel:
            raise Refused(f"{where}: storage {key}: expected {known} elements of {storage.dtype}, found {numel} of {dtype} too")
        return storage

    # The pickle names the storages; their data come after it, so they are found first and filled before anything is built.
    find_storages(value, storage_of, set())
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise Refused(f"{where}: storages: expected {short(sorted(storages))}, found {short(keys)}")
    for key in keys:
        storage, numel = storages[key]
        count = stream.read(8)
        if len(count) != 8 or struct.unpack("<q", count)[0] != numel:
            raise Refused(f"{where}: storage {key}: expected {numel} elements, found the count {count.hex()}")
        storage.data = take(stream.read(numel * DTYPES[storage.dtype][1]), storage.dtype, numel, f"{where}: storage {key}")
    return Resolver(where, storage_of, objects)(value)


def find_storages(root, storage_of, seen):
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, PersistentId):
            storage_of(value.value)
        if not isinstance(value, (Call, dict, list, tuple, set)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Call):
            waiting.extend([*value.arguments, value.state, *value.items])
            waiting.extend(v for pair in value.pairs for v in pair)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        else:
            waiting.extend(value)


def load_torch_file(path, extra_names=(), objects=()):
    """The value of a .pt, .pth, .bin or .ckpt file: dictionaries and lists with Tensors. Raises Refused, OSError."""
    allowed = TENSOR_NAMES | set(extra_names)
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return load_zip(path, allowed, objects) if is_zip else load_legacy(file, str(path), allowed, objects)


def write_safetensors(path, tensors, metadata=None):
    """tensors: {name: Tensor}. Writes under a temporary name, syncs, renames; returns the file's SHA-256."""
    def text(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    order = sorted(tensors, key=lambda name: (-DTYPES[tensors[name].dtype][1], name.encode()))
    # Sorted by bytes, as std::map does it.
    all_metadata = {**(metadata or {}), "format": "pt"}
    parts = ['"__metadata__":{' + ",".join(f"{text(k)}:{text(all_metadata[k])}" for k in sorted(all_metadata, key=str.encode)) + "}"]
    position = 0
    for name in order:
        size = tensors[name].array.nbytes
        shape = "[" + ",".join(str(n) for n in tensors[name].array.shape) + "]"
        parts.append(f'{text(name)}:{{"dtype":"{tensors[name].dtype}","shape":{shape},"data_offsets":[{position},{position + size}]}}')
        position += size
    header = ("{" + ",".join(parts) + "}").encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            for piece in [struct.pack("<Q", len(header)), header] + [tensors[name].array.tobytes() for name in order]:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return digest.hexdigest()


def write_text(path, content):
    """The same for a text."""
    temporary = f"{path}.tmp-{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
