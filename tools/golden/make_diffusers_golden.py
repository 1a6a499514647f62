"""Writes tests/golden/diffusers_export.safetensors: what diffusers makes of a Stable Diffusion folder that Onestep exported.

    build/bin/make_tiny_sd FOLDER && python tools/golden/make_diffusers_golden.py FOLDER [--out FILE]

FOLDER passes tools/check_diffusers_export.py first: it loads off line without a warning, every tensor as in its file. Tensors, f32:
    latents [3,4,8,8]   images [3,3,16,16] in [0,1]     of one step without guidance from the noise of samples.safetensors
with the SHA-256 of every file that diffusers reads under `files`, and the packages' versions.
"""
import argparse
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))
import check_diffusers_export  # noqa: E402  sets the libraries off line, before they are imported

import diffusers  # noqa: E402
import safetensors.torch  # noqa: E402

from versions import versions_json  # noqa: E402

NOT_READ = ("README.md", "SHA256SUMS", "samples.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parents[2] / "tests" / "golden" / "diffusers_export.safetensors")
    options = parser.parse_args()
    check_diffusers_export.main(options.folder)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(options.folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    with safetensors.safe_open(options.folder / "samples.safetensors", "pt") as file:
        call = dict(prompt=json.loads(file.metadata()["prompts"]), latents=file.get_tensor("noise"), num_inference_steps=1, guidance_scale=1.0)
    tensors = {"latents": pipeline(output_type="latent", **call).images, "images": pipeline(output_type="pt", **call).images}
    files = {str(path.relative_to(options.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in sorted(options.folder.rglob("*")) if path.is_file() and path.name not in NOT_READ}
    safetensors.torch.save_file({key: value.float().contiguous() for key, value in tensors.items()}, options.out,
                                {"files": json.dumps(files), "versions": versions_json("diffusers", "transformers", "torch")})
    print(f"{options.out}: {len(files)} files, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
