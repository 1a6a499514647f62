#!/usr/bin/env python3
"""Writes tests/golden/pickles/: files that torch itself saved, and what is in them, for tools/convert_torch.py and convert_edm_pickle.py.

    python3 tools/golden/make_pickle_golden.py tests/golden/pickles

state.pth (zip), state_legacy.pth, edm.pkl (a tree of torch modules whose classes reduce as EDM's persistent classes do), and
state.safetensors, edm.safetensors with the same tensors by the safetensors package.
"""
import collections
import pathlib
import pickle
import sys
import types

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file


def state():
    """Every storage type that a state dict may have, views, a scalar, an empty tensor."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = collections.OrderedDict(
        weight=torch.randn(3, 4), half=torch.randn(5).half(), brain=torch.randn(2, 3).bfloat16(), double=torch.randn(2).double(),
        count=torch.tensor(7), small=torch.arange(4, dtype=torch.int32), tiny=torch.arange(3, dtype=torch.int8),
        byte=torch.arange(3, dtype=torch.uint8), flag=torch.tensor([True, False]), short=torch.arange(2, dtype=torch.int16),
        empty=torch.zeros(0, 3), base=base, transposed=base.t(), tail=base[1:, 1:3])
    tensors["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    return tensors


def persistence():
    """A module of EDM's name with a function of EDM's name: a pickle names them, and nothing else of EDM is needed."""
    for name in ("torch_utils", "torch_utils.persistence"):
        sys.modules[name] = types.ModuleType(name)

    def reconstruct(meta):
        raise NotImplementedError("only its name is pickled")

    reconstruct.__module__, reconstruct.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    reconstruct.__name__ = "_reconstruct_persistent_obj"
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = reconstruct
    return reconstruct


RECONSTRUCT = persistence()


class Persistent(torch.nn.Module):
    def __init__(self, class_name, **kwargs):
        super().__init__()
        self.class_name, self._init_args, self._init_kwargs = class_name, (), kwargs

    def __reduce__(self):
        state_of = {k: v for k, v in self.__dict__.items() if k != "class_name"}
        meta = {"type": "class", "version": 6, "module_src": "raise RuntimeError", "class_name": self.class_name, "state": state_of}
        return (RECONSTRUCT, (meta,), None)


def leaf(class_name, *shape, buffer=False):
    module = Persistent(class_name)
    module.weight = torch.nn.Parameter(torch.randn(*shape))
    module.bias = torch.nn.Parameter(torch.randn(shape[0]))
    module.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25) if buffer else None)
    return module


def edm():
    options = dict(img_resolution=8, in_channels=3, out_channels=3, label_dim=0, model_channels=4, channel_mult=[1], num_blocks=1,
                   attn_resolutions=[], resample_filter=[1, 1])
    unet = Persistent("SongUNet", **options)
    unet.skip_scale = np.sqrt(0.5)  # a numpy scalar, as EDM keeps it
    unet.map_layer0 = leaf("Linear", 16, 4)
    unet.enc = torch.nn.ModuleDict({"8x8_conv": leaf("Conv2d", 4, 3, 3, 3), "8x8_block0": leaf("Conv2d", 4, 4, 3, 3, buffer=True)})
    precond = Persistent("EDMPrecond", img_resolution=8, img_channels=3, model_type="SongUNet", sigma_data=0.5)
    precond.model = unet
    return precond.eval().requires_grad_(False)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    print(f"torch {torch.__version__}, safetensors {safetensors.__version__}, Python {sys.version.split()[0]}")
    tensors = state()
    torch.save(tensors, folder / "state.pth")
    torch.save(tensors, folder / "state_legacy.pth", _use_new_zipfile_serialization=False)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "state.safetensors")
    network = edm()
    with open(folder / "edm.pkl", "wb") as file:
        pickle.dump({"ema": network, "loss_fn": None, "augment_pipe": None, "dataset_kwargs": {}}, file)
    save_file({k: v.detach().clone().contiguous() for k, v in network.state_dict().items()}, folder / "edm.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
