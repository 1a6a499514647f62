#!/usr/bin/env python3
"""Makes a Onestep model folder of an EDM network pickle, without running anything of it.

    python3 tools/convert_edm_pickle.py edm-cifar10-32x32-cond-vp.pkl teachers/cifar10

Needs numpy (Debian: python3-numpy), neither torch nor EDM's sources. The folder holds model.safetensors (every parameter and buffer
of `ema` under its published name, F32) and config.json (the architecture from the constructor arguments that the pickle keeps).
The pickle is read by tools/safe_pickle.py: what is not plain data of the known layout is refused, and the source text that EDM
stores beside its weights is never looked at. Exits 2 with one line when a file is refused.
"""
import argparse
import json
import os
import sys

from safe_pickle import Call, Refused, read_pickle
from torch_files import Resolver, TENSOR_NAMES, Tensor, short, write_safetensors, write_text

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
EASY_DICT = "dnnlib.util.EasyDict"
MODULE_DICT = "torch.nn.modules.container.ModuleDict"
RECONSTRUCTOR = "copyreg._reconstructor"
EDM_NAMES = {("torch_utils.persistence", "_reconstruct_persistent_obj"), ("dnnlib.util", "EasyDict"),
             ("torch.nn.modules.container", "ModuleDict"), ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"),
             ("builtins", "object"), ("__builtin__", "object"), ("builtins", "dict"), ("__builtin__", "dict")}
MAX_DEPTH = 32

# Class of `ema` -> name in a Onestep network; the U-Net that it builds unless told otherwise.
PRECONDITIONERS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve", "iDDPMPrecond": "iddpm"}
# Constructor arguments in order of position, with their defaults.
UNETS = {
    "SongUNet": ("song_unet", {
        "img_resolution": None, "in_channels": None, "out_channels": None, "label_dim": 0, "augment_dim": 0,
        "model_channels": 128, "channel_mult": [1, 2, 2, 2], "channel_mult_emb": 4, "num_blocks": 4,
        "attn_resolutions": [16], "dropout": 0.10, "label_dropout": 0, "embedding_type": "positional",
        "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1]}),
    "DhariwalUNet": ("adm_unet", {
        "img_resolution": None, "in_channels": None, "out_channels": None, "label_dim": 0, "augment_dim": 0,
        "model_channels": 192, "channel_mult": [1, 2, 3, 4], "channel_mult_emb": 4, "num_blocks": 3,
        "attn_resolutions": [32, 16, 8], "dropout": 0.10, "label_dropout": 0}),
}


def shallow(value):
    """An EasyDict as a dictionary; other values as they are."""
    if isinstance(value, Call) and value.name in (EASY_DICT, RECONSTRUCTOR):
        given = value.arguments[2] if value.name == RECONSTRUCTOR and len(value.arguments) == 3 else None
        return (given if isinstance(given, dict) else {}) | dict(value.pairs)
    return value


def plain(value, depth=0):
    """EasyDicts and tuples as dictionaries and lists, all the way down: for options."""
    if depth > MAX_DEPTH:
        raise Refused("expected options of some depth, found more")
    value = shallow(value)
    if isinstance(value, dict):
        return {k: plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    return value


def module_parts(value, where):
    """A module of the pickle -> (class name, its __dict__); Raises Refused."""
    if isinstance(value, Call) and value.name == PERSISTENT and len(value.arguments) == 1:
        meta = shallow(value.arguments[0])
        if not isinstance(meta, dict) or meta.get("type") != "class":
            raise Refused(f"{where}: expected a persistent class, found {short(meta)}")
        if meta.get("version") != 6:
            raise Refused(f"{where}: version of the persistent class: expected 6, found {short(meta.get('version'))}")
        name, state = meta.get("class_name"), meta.get("state")
    elif isinstance(value, Call) and value.name in (MODULE_DICT, RECONSTRUCTOR):
        name, state = "ModuleDict", value.state
    else:
        raise Refused(f"{where}: expected a module, found {short(value)}")
    if not isinstance(state, dict) or not all(isinstance(state.get(k), dict) for k in ("_parameters", "_buffers", "_modules")):
        raise Refused(f"{where}: expected the state of a module (_parameters, _buffers, _modules), found {short(state)}")
    return name, state


def collect(value, prefix, where, tensors, depth=0):
    """Adds every parameter and persistent buffer below a module under its full name."""
    if depth > MAX_DEPTH:
        raise Refused(f"{where}: {prefix}: expected at most {MAX_DEPTH} modules inside each other, found more")
    _, state = module_parts(value, f"{where}: {prefix or 'ema'}")
    fleeting = state.get("_non_persistent_buffers_set") or set()
    for kind in ("_parameters", "_buffers"):
        for name, tensor in state[kind].items():
            if tensor is None or (kind == "_buffers" and name in fleeting):
                continue
            if not isinstance(tensor, Tensor):
                raise Refused(f"{where}: {prefix}{name}: expected a tensor, found {short(tensor)}")
            if tensor.dtype != "F32":
                raise Refused(f"{where}: {prefix}{name}: expected F32, found {tensor.dtype}")
            tensors[prefix + name] = tensor
    for name, module in state["_modules"].items():
        if module is not None:
            collect(module, f"{prefix}{name}.", where, tensors, depth + 1)


def constructor_options(state, defaults, where):
    arguments, keywords = plain(state.get("_init_args") or []), plain(state.get("_init_kwargs") or {})
    if not isinstance(arguments, list) or not isinstance(keywords, dict) or len(arguments) > len(defaults):
        raise Refused(f"{where}: expected constructor arguments, found {short(arguments)}, {short(keywords)}")
    options = dict(defaults) | dict(zip(defaults, arguments)) | keywords
    extra = sorted(set(options) - set(defaults))
    if extra:
        raise Refused(f"{where}: expected the options {', '.join(defaults)}, found also {', '.join(map(str, extra))}")
    missing = [name for name, value in options.items() if value is None]
    if missing:
        raise Refused(f"{where}: expected {', '.join(missing)}, found none")
    return options


def network_of(ema, where):
    """The `network` object of config.json."""
    class_name, state = module_parts(ema, f"{where}: ema")
    if class_name not in PRECONDITIONERS:
        raise Refused(f"{where}: ema: expected one of {', '.join(PRECONDITIONERS)}, found {short(class_name)}")
    unet_name, unet_state = module_parts(state["_modules"].get("model"), f"{where}: ema.model")
    if unet_name not in UNETS:
        raise Refused(f"{where}: ema.model: expected one of {', '.join(UNETS)}, found {short(unet_name)}")
    network_class, defaults = UNETS[unet_name]
    options = constructor_options(unet_state, defaults, f"{where}: ema.model")
    outer = plain(state.get("_init_kwargs") or {})
    image_channels = options["in_channels"]
    if options["out_channels"] != image_channels * (2 if class_name == "iDDPMPrecond" else 1):
        raise Refused(f"{where}: ema.model: out_channels: expected those of the images, found {short(options['out_channels'])}")
    network = {
        "class": network_class, "preconditioner": PRECONDITIONERS[class_name], "image_size": options["img_resolution"],
        "image_channels": image_channels, "pixel_unshuffle": 1, "model_channels": options["model_channels"],
        "channel_mult": options["channel_mult"], "channel_mult_emb": options["channel_mult_emb"],
        "num_blocks": options["num_blocks"], "attention_resolutions": options["attn_resolutions"],
        "label_dim": options["label_dim"], "dropout": options["dropout"], "sigma_data": outer.get("sigma_data", 0.5)}
    if network_class == "song_unet":
        network["augment_dim"] = options["augment_dim"]
        if options["decoder_type"] != "standard" or options["encoder_type"] not in ("standard", "residual"):
            raise Refused(f"{where}: ema.model: expected a standard decoder and a standard or residual encoder, found "
                          f"{short(options['decoder_type'])} and {short(options['encoder_type'])}")
        network |= {name: options[name] for name in ("embedding_type", "channel_mult_noise", "encoder_type", "resample_filter")}
    elif options["augment_dim"] != 0:
        raise Refused(f"{where}: ema.model: augment_dim of {unet_name}: expected 0, found {short(options['augment_dim'])}")
    else:
        network |= {"noise_frequencies": "published", "channels_per_head": 64}
    for name, value in network.items():
        if not isinstance(value, (str, int, float)) and not (isinstance(value, list) and all(isinstance(v, int) for v in value)):
            raise Refused(f"{where}: {name}: expected numbers, found {short(value)}")
    return network


def no_storage(_):
    raise Refused("expected storages inside the pickle, found one outside")


def convert(pickle_path, folder):
    """Returns (network, number of tensors, of elements, digest); raises Refused, OSError."""
    where = str(pickle_path)
    with open(pickle_path, "rb") as file:
        data = read_pickle(file, where, TENSOR_NAMES | EDM_NAMES)
        if file.read(1):
            raise Refused(f"{where}: expected the end of the file after one pickle, found more")
    data = shallow(data)
    if not isinstance(data, dict) or "ema" not in data:
        raise Refused(f"{where}: expected a dictionary with `ema`, found {short(data)}")
    ema = Resolver(where, no_storage, {PERSISTENT, EASY_DICT, MODULE_DICT, RECONSTRUCTOR})(data["ema"])
    network = network_of(ema, where)
    tensors = {}
    collect(ema, "", where, tensors)
    if not tensors:
        raise Refused(f"{where}: ema: expected tensors, found none")
    if os.path.exists(folder) and os.listdir(folder):
        raise Refused(f"{folder}: expected a new or empty folder, found files in it")
    os.makedirs(folder, exist_ok=True)
    digest = write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    config = {"format": "onestep-model", "format_version": 1, "network": network, "kind": "train_teacher", "weights": "ema",
              "sampler": "heun", "generator_sigma": 0.0, "images": 0, "model_sha256": digest}
    write_text(os.path.join(folder, "config.json"), json.dumps(config, indent=2, sort_keys=True) + "\n")
    return network, len(tensors), sum(t.array.size for t in tensors.values()), digest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pickle", help="edm-*.pkl")
    parser.add_argument("folder", help="new model folder")
    arguments = parser.parse_args()
    try:
        network, count, elements, digest = convert(arguments.pickle, arguments.folder)
    except (Refused, OSError) as error:
        print(f"convert_edm_pickle.py: {error}", file=sys.stderr)
        sys.exit(2)
    except RecursionError:
        print(f"convert_edm_pickle.py: {arguments.pickle}: expected values of some depth, found more", file=sys.stderr)
        sys.exit(2)
    print(f"{arguments.folder}: {network['class']} under {network['preconditioner']}, {count} tensors, {elements:,} elements; "
          f"sha256 {digest}")


if __name__ == "__main__":
    main()
