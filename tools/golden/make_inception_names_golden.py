"""Writes tests/golden/inception_names.json: names and shapes of the file that pytorch-fid and torch-fidelity load.

    python tools/golden/make_inception_names_golden.py [--out FILE]

Needs torch, pytorch-fid, torch-fidelity. Nothing is downloaded: the names are those of each package's own network, which loads its
file strictly; both packages name the same published file (pt_inception-2015-12-05-6726825d.pth), and must agree here.
"""
import argparse
import importlib.metadata
import json
import pathlib
import tempfile

import torch

from make_inception_golden import pytorch_fid_network


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "inception_names.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    state = pytorch_fid_network().state_dict()
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / "weights.pth"
        torch.save(state, weights)
        fidelity = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    shapes = {name: list(value.shape) for name, value in state.items()}
    theirs = {name: list(value.shape) for name, value in fidelity.state_dict().items()}
    if shapes != theirs:
        raise SystemExit(f"the packages differ: {sorted(set(shapes) ^ set(theirs))[:10]}")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "pytorch-fid", "torch-fidelity")}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
    out.write_text(f'{{"versions": {json.dumps(versions)},\n"tensors": {{\n{lines}\n}}}}\n')
    print(f"{versions}; {out}: {len(shapes)} tensors")


if __name__ == "__main__":
    main()
