"""Loads an exported Stable Diffusion folder with diffusers, off line, and reproduces its samples.

    python tools/check_diffusers_export.py FOLDER

DiffusionPipeline.from_pretrained must load FOLDER without a warning and without weights of its own making; every tensor must
have the folder's dtype; one step without guidance from the noise of samples.safetensors, or the steps that onestep.json names with its
noise behind each, must give its images: within 1e-4 for float32 weights, for 16 bits within 0.1 of their norm (the samples are those
of the weights before they were rounded).
Exit status 1 when something differs, 2 when the folder does not load.
"""
import hashlib
import json
import logging
import os
import pathlib
import sys
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DIFFUSERS_VERBOSITY="warning", TRANSFORMERS_VERBOSITY="warning")
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Heard(logging.Handler):
    """Everything that the libraries say at level warning or above."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(f"{record.name}: {record.getMessage()}")


def check_digests(folder):
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise RuntimeError(f"{name}: digest differs from SHA256SUMS")


def steps_of(folder, file):
    """What the pipeline is called with, and the noise that its scheduler draws on the way."""
    facts = folder / "onestep.json"
    timesteps = json.loads(facts.read_text()).get("student_timesteps") if facts.exists() else None
    if timesteps is None:
        return {"num_inference_steps": 1}, []
    return {"timesteps": [int(t) for t in timesteps]}, [file.get_tensor(f"noise_{i}") for i in range(1, len(timesteps))]


def main(folder):
    import diffusers
    import diffusers.schedulers.scheduling_lcm as lcm
    import safetensors
    import torch
    import transformers

    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, transformers {transformers.__version__}")
    heard = Heard()
    for name in ("diffusers", "transformers", "huggingface_hub"):
        logging.getLogger(name).addHandler(heard)
    check_digests(folder)
    with safetensors.safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        dtype = getattr(torch, TYPES[file.get_slice(next(iter(file.keys()))).get_dtype()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), dtype=dtype, local_files_only=True)
        for part in ("unet", "vae", "text_encoder"):
            network = getattr(pipeline, part)
            path = next((folder / part).glob("*.safetensors"))
            with safetensors.safe_open(path, "pt") as file:
                state = network.state_dict()
                names = {key: key if key in state else key.removeprefix("text_model.") for key in file.keys()}
                missing = set(state) - set(names.values()) - {"text_model.embeddings.position_ids", "embeddings.position_ids"}
                if missing or len(set(names.values())) != len(names):
                    raise RuntimeError(f"{part}: tensors without a value in the file: {sorted(missing)}")
                for key, own in names.items():
                    if not torch.equal(state[own], file.get_tensor(key)):
                        raise RuntimeError(f"{part}: {key} was not loaded")
        pipeline.set_progress_bar_config(disable=True)
        worst = 0.0
        samples = folder / "samples.safetensors"
        if samples.exists():
            with safetensors.safe_open(samples, "pt") as file:
                prompts = json.loads(file.metadata()["prompts"])
                noise, images, latents = (file.get_tensor(name) for name in ("noise", "images", "latents"))
                steps, later = steps_of(folder, file)
            call = dict(prompt=prompts, guidance_scale=1.0, latents=noise.to(dtype), **steps)

            def images_as(output_type):
                drawn = iter(later)
                lcm.randn_tensor = lambda *_, **__: next(drawn).to(dtype)
                return pipeline(output_type=output_type, **call).images.float()

            found = images_as("latent")
            print(f"latents: largest difference {(found - latents).abs().max():.1e}, of the norm "
                  f"{(found - latents).norm() / latents.norm():.1e}")
            found = images_as("pt")
            expected = (images / 2 + 0.5).clamp(0, 1)
            worst = (found - expected).abs().max().item()
            relative = ((found - expected).norm() / expected.norm()).item()
            print(f"images {list(found.shape)}: largest difference {worst:.1e}, of the norm {relative:.1e}")
            if worst > 1e-4 if dtype == torch.float32 else relative > 0.1:
                raise RuntimeError(f"images differ by {worst:.1e}, {relative:.1e} of the norm")
    said = heard.messages + [f"{w.category.__name__}: {w.message}" for w in caught]
    if said:
        raise RuntimeError("warnings:\n  " + "\n  ".join(said))
    print(f"{folder}: loads without a warning, {dtype}, every tensor as in the files")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1], "model_index.json").is_file():
        sys.exit(__doc__ if len(sys.argv) != 2 else 2)
    try:
        main(pathlib.Path(sys.argv[1]))
    except RuntimeError as error:
        print(f"check_diffusers_export: {error}", file=sys.stderr)
        sys.exit(1)
