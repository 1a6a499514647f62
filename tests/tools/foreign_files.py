"""Other people's files for the tests, written with the standard library and numpy: torch.save's two forms and EDM's pickles.

The classes here stand for those of torch and EDM: they pickle as the real ones do (names, arguments, nesting), which is all that a
reader sees. Nothing of torch or EDM is needed or copied.
"""
import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

STORAGE_OF = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage", "<f8": "DoubleStorage", "<u2": "BFloat16Storage"}


def module(name):
    parts = name.split(".")
    for end in range(1, len(parts) + 1):  # pickle imports the packages above too
        whole = ".".join(parts[:end])
        if whole not in sys.modules:
            sys.modules[whole] = types.ModuleType(whole)
    return sys.modules[name]


def stand_in(module_name, name, kind=None):
    """A function or class that pickles as module_name.name."""
    made = kind if kind is not None else (lambda *arguments: None)
    made.__module__, made.__name__, made.__qualname__ = module_name, name, name
    setattr(module(module_name), name, made)
    return made


REBUILD_TENSOR = stand_in("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = stand_in("torch._utils", "_rebuild_parameter")
LOAD_FROM_BYTES = stand_in("torch.storage", "_load_from_bytes")
RECONSTRUCT = stand_in("torch_utils.persistence", "_reconstruct_persistent_obj")
STORAGES = {name: stand_in("torch", name, type(name, (), {})) for name in STORAGE_OF.values()}
EASY_DICT = stand_in("dnnlib.util", "EasyDict", type("EasyDict", (dict,), {}))


class StorageReference:
    """What torch's pickler hands to persistent_id()."""

    def __init__(self, array, key):
        self.array, self.key = array, key


class Reduced:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, StorageReference):
            return ("storage", STORAGES[STORAGE_OF[value.array.dtype.str]], value.key, "cuda:0", value.array.size)
        return None


def dumps(value, protocol=2):
    stream = io.BytesIO()
    TorchPickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor_of(storage, array, offset=0, strides=None):
    strides = strides or tuple(s // array.itemsize for s in np.empty(array.shape, array.dtype).strides)
    return Reduced(REBUILD_TENSOR, storage, offset, array.shape, strides, False, collections.OrderedDict())


def state_dict(arrays, storages):
    """Tensors by name, each over a storage of its own; `storages` receives them."""
    result = collections.OrderedDict()
    for name, array in arrays.items():
        storages.append(StorageReference(np.ascontiguousarray(array).reshape(-1), str(len(storages))))
        result[name] = tensor_of(storages[-1], array)
    return result


def zip_file(path, value, storages):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", dumps(value))
        archive.writestr("archive/byteorder", "little")
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")


def legacy_bytes(value, storages):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [dumps(v) for v in (0x1950A86A20F9469CFC6C, 1001, system)] + [dumps(value), dumps([s.key for s in storages])]
    for storage in storages:
        parts.append(struct.pack("<q", storage.array.size) + storage.array.tobytes())
    return b"".join(parts)


# ---- EDM -------------------------------------------------------------------------------------------


def parameter(array):
    """A parameter as plain pickle writes it: its storage a nested legacy file."""
    array = np.ascontiguousarray(array, "<f4")
    reference = StorageReference(array.reshape(-1), "94")
    storage = Reduced(LOAD_FROM_BYTES, legacy_bytes(reference, [reference]))
    return Reduced(REBUILD_PARAMETER, tensor_of(storage, array), True, collections.OrderedDict())


def buffer(array):
    return parameter(array).reduced[1][0]


class Module:
    """A persistent class of EDM: reduces to its state, its class's name and a source text."""

    def __init__(self, class_name, parameters=None, buffers=None, modules=None, init_args=(), **init_kwargs):
        self.class_name = class_name
        self.state = {"training": False, "_parameters": parameters or {}, "_buffers": buffers or {},
                      "_non_persistent_buffers_set": set(), "_modules": modules or {}, "_init_args": init_args,
                      "_init_kwargs": init_kwargs, "skip_scale": np.sqrt(0.5)}

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": "raise RuntimeError('the source in the file was run')",
                "class_name": self.class_name, "state": self.state}
        return (RECONSTRUCT, (meta,))


class ModuleDict:
    """torch's own: no constructor arguments, the state by BUILD."""

    def __init__(self, modules=None):
        self.training, self._parameters, self._buffers, self._modules = False, {}, {}, modules or {}


stand_in("torch.nn.modules.container", "ModuleDict", ModuleDict)


class SongUnet:
    """The tensors of a small DDPM++ network, module by module, under its published names."""

    def __init__(self, rng, side=16, channels=8, mult=(1, 2), label_dim=10, augment_dim=9, attention=(8,), num_blocks=1):
        self.rng, self.emb, self.arrays, self.attention = rng, 4 * channels, {}, attention
        self.options = dict(img_resolution=side, in_channels=3, out_channels=3, label_dim=label_dim, augment_dim=augment_dim,
                            model_channels=channels, channel_mult=list(mult), channel_mult_emb=4, num_blocks=num_blocks,
                            attn_resolutions=list(attention), dropout=0.13, embedding_type="positional")
        modules = {"map_label": self.linear("map_label", label_dim, channels),
                   "map_augment": self.linear("map_augment", augment_dim, channels, bias=False),
                   "map_layer0": self.linear("map_layer0", channels, self.emb),
                   "map_layer1": self.linear("map_layer1", self.emb, self.emb)}
        encoder, decoder, skips, width = {}, {}, [], channels
        for level, factor in enumerate(mult):
            r, out = side >> level, channels * factor
            name = f"{r}x{r}_"
            if level == 0:
                encoder[name + "conv"] = self.conv(f"enc.{name}conv", 3, width, 3)
            else:
                encoder[name + "down"] = self.block(f"enc.{name}down", width, width, resampled=True)
            skips.append(width)
            for n in range(num_blocks):
                encoder[f"{name}block{n}"] = self.block(f"enc.{name}block{n}", width, out, attention=r in attention)
                width = out
                skips.append(width)
        for level, factor in reversed(list(enumerate(mult))):
            r, out = side >> level, channels * factor
            name = f"{r}x{r}_"
            if level == len(mult) - 1:
                decoder[name + "in0"] = self.block(f"dec.{name}in0", width, width, attention=True)
                decoder[name + "in1"] = self.block(f"dec.{name}in1", width, width)
            else:
                decoder[name + "up"] = self.block(f"dec.{name}up", width, width, resampled=True)
            for n in range(num_blocks + 1):
                decoder[f"{name}block{n}"] = self.block(f"dec.{name}block{n}", width + skips.pop(), out,
                                                        attention=r in attention and n == num_blocks)
                width = out
        decoder[f"{side}x{side}_aux_norm"] = self.norm(f"dec.{side}x{side}_aux_norm", width)
        decoder[f"{side}x{side}_aux_conv"] = self.conv(f"dec.{side}x{side}_aux_conv", width, 3, 3)
        modules |= {"enc": ModuleDict(encoder), "dec": ModuleDict(decoder)}
        self.module = Module("SongUNet", modules=modules, **self.options)

    def fresh(self, name, shape):
        self.arrays["model." + name] = self.rng.standard_normal(shape).astype("<f4")
        return parameter(self.arrays["model." + name])

    def pair(self, class_name, name, shape, bias=True):
        made = {"weight": self.fresh(name + ".weight", shape)}
        made["bias"] = self.fresh(name + ".bias", shape[:1]) if bias else None
        return Module(class_name, parameters=made)

    def linear(self, name, fan_in, fan_out, bias=True):
        return self.pair("Linear", name, (fan_out, fan_in), bias)

    def norm(self, name, width):
        return self.pair("GroupNorm", name, (width,))

    def conv(self, name, fan_in, fan_out, kernel, resampled=False):
        made = self.pair("Conv2d", name, (fan_out, fan_in, kernel, kernel))
        if resampled:
            self.arrays[f"model.{name}.resample_filter"] = np.full((1, 1, 2, 2), 0.25, "<f4")
            made.state["_buffers"]["resample_filter"] = buffer(self.arrays[f"model.{name}.resample_filter"])
        else:
            made.state["_buffers"]["resample_filter"] = None
        return made

    def block(self, name, fan_in, fan_out, resampled=False, attention=False):
        modules = {"norm0": self.norm(name + ".norm0", fan_in), "conv0": self.conv(name + ".conv0", fan_in, fan_out, 3, resampled),
                   "affine": self.linear(name + ".affine", self.emb, fan_out), "norm1": self.norm(name + ".norm1", fan_out),
                   "conv1": self.conv(name + ".conv1", fan_out, fan_out, 3)}
        if resampled or fan_in != fan_out:
            modules["skip"] = self.conv(name + ".skip", fan_in, fan_out, 1, resampled)
        if attention:
            modules |= {"norm2": self.norm(name + ".norm2", fan_out), "qkv": self.conv(name + ".qkv", fan_out, 3 * fan_out, 1),
                        "proj": self.conv(name + ".proj", fan_out, fan_out, 1)}
        return Module("UNetBlock", modules=modules)


def edm_pickle(network, protocol=4, preconditioner="EDMPrecond", **outer):
    """The bytes of an EDM pickle of it."""
    options = dict(img_resolution=network.options["img_resolution"], img_channels=3, label_dim=network.options["label_dim"],
                   model_type="SongUNet", **outer)
    ema = Module(preconditioner, modules={"model": network.module}, **options)
    data = {"ema": ema, "loss_fn": Module("EDMLoss"), "augment_pipe": None,
            "dataset_kwargs": EASY_DICT(class_name="training.dataset.ImageFolderDataset", resolution=16)}
    return pickle.dumps(data, protocol)
