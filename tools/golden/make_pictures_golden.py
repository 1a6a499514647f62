#!/usr/bin/env python3
"""Writes tests/golden/pictures/: PNG and JPEG files of every kind that is read or refused, and what Pillow makes of them.

    python3 tools/golden/make_pictures_golden.py tests/golden/pictures

pixels.safetensors: "<file>" U8 [H, W, C] as Pillow decodes it, and "<file> <filter> <width>x<height>" as Pillow resizes that.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import PIL
from PIL import Image, features

from versions import versions_json

DECODED = ["rgb.png", "grey.png", "palette.png", "one_bit.png", "opaque.png", "interlaced.png", "rgb.jpg", "rgb444.jpg", "grey.jpg",
           "progressive.jpg"]
RESIZES = [("rgb.png", "box", 9, 7), ("rgb.png", "lanczos", 16, 16), ("rgb.png", "lanczos", 5, 13), ("grey.png", "lanczos", 10, 10),
           ("square.png", "box", 16, 16), ("square.png", "box", 24, 24), ("square.png", "lanczos", 16, 16), ("square.png", "lanczos", 31, 31)]


def picture(height, width, channels, seed):
    """Gradients with noise on them, and hard edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * (3 + c) + y * (5 - c)) % 256 for c in range(channels)]
    image = np.stack(planes, 2) + rng.integers(-40, 40, (height, width, channels))
    image[height // 3:height // 2, width // 4:width // 2] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def interlaced_png(image):
    """Adam7, which Pillow reads but does not write."""
    import zlib
    height, width, _ = image.shape
    raw = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = image[y0::dy, x0::dx]
        if part.size:
            raw += b"".join(b"\0" + row.tobytes() for row in part)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def write_safetensors(path, arrays):
    header, data = {"__metadata__": {"format": "pt", "versions": versions_json("pillow", "numpy")}}, b""
    for name in sorted(arrays):
        content = arrays[name].tobytes()
        header[name] = {"dtype": "U8", "shape": list(arrays[name].shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def as_array(image):
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, numpy {np.__version__}")
    rgb = Image.fromarray(picture(29, 37, 3, 1))
    grey = Image.fromarray(picture(29, 37, 1, 2)[:, :, 0])
    square = Image.fromarray(picture(48, 48, 3, 3))
    rgb.save(folder / "rgb.png")
    square.save(folder / "square.png")
    grey.save(folder / "grey.png")
    rgb.quantize(17).save(folder / "palette.png")
    grey.point(lambda v: 255 * (v > 90)).convert("1").save(folder / "one_bit.png")
    opaque = rgb.convert("RGBA")
    opaque.save(folder / "opaque.png")
    (folder / "interlaced.png").write_bytes(interlaced_png(np.asarray(rgb)))
    rgb.save(folder / "rgb.jpg", quality=90)
    rgb.save(folder / "rgb444.jpg", quality=75, subsampling=0)
    rgb.save(folder / "progressive.jpg", quality=80, progressive=True)
    grey.save(folder / "grey.jpg", quality=85)
    # Refused:
    opaque.putpixel((3, 2), (1, 2, 3, 254))
    opaque.save(folder / "transparent.png")
    Image.fromarray((np.asarray(grey).astype(np.uint16) << 8)).save(folder / "sixteen_bits.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")

    arrays = {}
    for name in DECODED:
        image = Image.open(folder / name)
        mode = "L" if name in ("grey.png", "one_bit.png", "grey.jpg") else "RGB"
        arrays[name] = as_array(image.convert(mode))
    filters = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
    for name, kind, width, height in RESIZES:
        resized = Image.open(folder / name).resize((width, height), filters[kind])
        arrays[f"{name} {kind} {width}x{height}"] = as_array(resized)
    write_safetensors(folder / "pixels.safetensors", arrays)
    print(f"{folder}: {len(list(folder.iterdir()))} files")


if __name__ == "__main__":
    main()
