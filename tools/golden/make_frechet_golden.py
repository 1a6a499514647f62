"""Writes tests/golden/frechet.json: two small sets of features and the Fréchet distance between them, in fp64.

    python3 tools/golden/make_frechet_golden.py [--out FILE]

Needs numpy. FD = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), covariances divided by n - 1, the last trace being the
sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2) (Heusel et al. 2017). A second way to that trace, singular
values of the product of the two roots, has to agree before anything is written. The third case has fewer rows than
columns: singular covariances.
"""
import argparse
import json
import pathlib

import numpy as np

from versions import versions


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet(a, b):
    mean_term = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    r1 = root(c1)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(r1 @ c2 @ r1), 0)).sum()
    second = np.linalg.svd(r1 @ root(c2), compute_uv=False).sum()
    if abs(cross - second) > 1e-6 * abs(second):
        raise RuntimeError(f"trace of the root: by eigenvalues {cross}, by singular values {second}")
    return mean_term + float(np.trace(c1) + np.trace(c2) - 2 * second)


def features(random, rows, columns, shift):
    mixing = random.normal(size=(columns, columns)) * 0.4 + np.eye(columns)
    return np.maximum(random.normal(size=(rows, columns)) @ mixing + shift, 0).round(4)  # ReLU's look; short decimals


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "frechet.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    random = np.random.default_rng(20240229)
    cases = []
    for name, rows_a, rows_b, columns in (("square", 40, 50, 6), ("wide", 60, 30, 12), ("singular", 8, 9, 12)):
        a, b = features(random, rows_a, columns, 0.3), features(random, rows_b, columns, 0.7)
        cases.append({"name": name, "a": a.tolist(), "b": b.tolist(), "frechet": frechet(a, b)})
    shifted = np.array(cases[0]["a"]) + 1.5
    cases.append({"name": "shift alone", "a": cases[0]["a"], "b": shifted.tolist(), "frechet": 6 * 1.5 ** 2})
    out.write_text(json.dumps({"versions": versions("numpy"), "cases": cases}) + "\n")
    print(f"numpy {np.__version__}; {out}: {[(c['name'], round(c['frechet'], 6)) for c in cases]}")


if __name__ == "__main__":
    main()
