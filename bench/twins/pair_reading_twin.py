"""h5py reads the rows that the program has read, a batch at a time; prints {rows_per_second, sums} of the faster of two ways.

    python3 pair_reading_twin.py --set DIR --order FILE --batch 64
"""
import argparse
import json
import time
from pathlib import Path

import h5py
import numpy


def by_row(shards, rows_per_shard, rows):
    """One read a row, as they come: what a map-style data set does."""
    parts = [shards[row // rows_per_shard] for row in rows]
    places = [row % rows_per_shard for row in rows]
    return tuple(numpy.stack([part[name][place] for part, place in zip(parts, places)]) for name in ("noise", "image", "label"))


def by_shard(shards, rows_per_shard, rows):
    """A selection a shard, in ascending order as h5py wants it, then sorted back."""
    rows = numpy.asarray(rows)
    result = [None] * 3
    for number, shard in enumerate(shards):
        chosen = numpy.flatnonzero(rows // rows_per_shard == number)
        if not chosen.size:
            continue
        places, back = numpy.unique(rows[chosen] % rows_per_shard, return_inverse=True)
        for i, name in enumerate(("noise", "image", "label")):
            values = shard[name][places][back]
            if result[i] is None:
                result[i] = numpy.empty((len(rows), *values.shape[1:]), values.dtype)
            result[i][chosen] = values
    return tuple(result)


def measure(way, shards, rows_per_shard, order, batch):
    sums = [0.0, 0.0, 0]
    start = time.perf_counter()
    for first in range(0, len(order), batch):
        noise, image, label = way(shards, rows_per_shard, order[first:first + batch])
        sums[0] += float(noise[:, 0, 0, 0].sum(dtype=numpy.float64))
        sums[1] += float(image[:, -1, -1, -1].sum(dtype=numpy.float64))
        sums[2] += int(label.sum())
    seconds = time.perf_counter() - start
    return {"rows_per_second": len(order) / seconds, "sums": sums, "way": way.__name__}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", required=True)
    parser.add_argument("--order", required=True)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    manifest = json.loads((Path(arguments.set) / "manifest.json").read_text())
    shards = [h5py.File(path, "r") for path in sorted(Path(arguments.set).glob("pairs-*.h5"))]
    order = numpy.fromfile(arguments.order, numpy.int64).tolist()
    results = [measure(way, shards, manifest["rows_per_shard"], order, arguments.batch) for way in (by_row, by_shard)]
    print(json.dumps(max(results, key=lambda result: result["rows_per_second"]) | {"h5py": h5py.__version__}))


if __name__ == "__main__":
    main()
