#!/usr/bin/env python3
"""What an autoencoder of diffusers loses: PSNR of its reconstructions of captioned emoji, and a picture of some.

    python tools/reconstruct.py configs/sd15/tiny/vae build/data/emoji OUT.png

Every eighth picture of EMOJI/pictures is encoded to its posterior's mean and decoded. Prints the mean PSNR in dB over pictures (peak: the
range of a byte) and that of each class; OUT.png has one picture of each class above its reconstruction. Exit status 1 when a file is
missing. Needs torch, diffusers, Pillow.
"""
import json
import os
import pathlib
import sys

os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_VERBOSITY="error")
EVERY, AT_ONCE = 8, 16


def bytes_of(image):
    return ((image.clamp(-1, 1) / 2 + 0.5) * 255).round().byte()


def main(autoencoder, emoji, out):
    import diffusers
    import numpy
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    network = diffusers.AutoencoderKL.from_pretrained(autoencoder, local_files_only=True).float()
    labels = json.loads((emoji / "pictures" / "dataset.json").read_text())["labels"][::EVERY]
    names = (emoji / "prompts.txt").read_text().splitlines()
    images = torch.stack([torch.from_numpy(numpy.array(Image.open(emoji / "pictures" / name))) for name, _ in labels])
    images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        found = torch.cat([network.decode(network.encode(part).latent_dist.mean).sample for part in images.split(AT_ONCE)])
    psnr = -10 * ((found.clamp(-1, 1) - images) / 2).square().flatten(1).mean(1).log10()
    classes = torch.tensor([label for _, label in labels])
    for label, name in enumerate(names):
        print(f"{psnr[classes == label].mean():5.1f} dB  {name}")
    print(f"{psnr.mean():5.1f} dB  mean of {len(labels)} pictures")
    first = [int((classes == label).nonzero()[0]) for label in range(len(names))]
    rows = [torch.cat(list(bytes_of(part[first])), 2) for part in (images, found)]
    Image.fromarray(torch.cat(rows, 1).permute(1, 2, 0).numpy()).save(out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])
    except OSError as error:
        print(f"reconstruct: {error}", file=sys.stderr)
        sys.exit(1)
