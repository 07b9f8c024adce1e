#!/usr/bin/env python3
"""Golden values of the measures of cuvae/evaluation.h, probe.h and sample_quality.h.

    python tests/golden/make_evaluation.py [--check] [FILE]

writes tests/golden/evaluation.json (--check: compares). Wants NumPy, SciPy and scikit-learn. Points
are rounded to multiples of 1/256, so that float32 holds them exactly; what scikit-learn or SciPy has
is taken from there, the rest is NumPy by brute force in float64.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.neighbors import KNeighborsClassifier

FILE = pathlib.Path(__file__).with_name("evaluation.json")


def points(rng: np.random.Generator, n: int, d: int, shift: float = 0.0, scale: float = 1.0):
    return np.round((rng.normal(size=(n, d)) * scale + shift) * 256) / 256


def importance() -> list[dict]:
    rng = np.random.default_rng(1)
    cases = [
        rng.normal(size=7),
        rng.normal(size=100) * 5 - 90,
        np.array([-1000.0, 1000.0, 999.0]),
        np.array([-1e6, -1e6, -1e6 + 1]),
        np.full(50, -86.76),
        np.array([3.0]),
        -np.arange(40.0) * 30,  # ascending and descending: the largest is first
        np.arange(40.0) * 30,
    ]
    rows = []
    for w in cases:
        v = np.exp(w - logsumexp(w))
        rows.append(
            {
                "log_weights": w.tolist(),
                "log_mean": float(logsumexp(w) - math.log(len(w))),
                "effective": float(1 / np.sum(v**2)),
            }
        )
    return rows


def latents() -> dict:
    rng = np.random.default_rng(2)
    mean = points(rng, 50, 4) * np.array([1.0, 0.5, 0.0625, 0.0])
    logvar = points(rng, 50, 4, -1.0, 0.5)
    logvar[:, 3] = 0
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1)
    return {
        "mean": mean.tolist(),
        "logvar": logvar.tolist(),
        "kl": kl.mean(0).tolist(),
        "variance": mean.var(0).tolist(),
    }


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1)

    m, n = len(x), len(y)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    return float(
        (xx.sum() - np.trace(xx)) / (m * (m - 1))
        + (yy.sum() - np.trace(yy)) / (n * (n - 1))
        - 2 * xy.mean()
    )


def kernels() -> list[dict]:
    rng = np.random.default_rng(3)
    rows = []
    for m, n, d, shift in [(12, 9, 5, 0.0), (140, 130, 3, 0.5), (2, 2, 1, 2.0), (70, 40, 16, 0.1)]:
        x, y = points(rng, m, d), points(rng, n, d, shift)
        rows.append({"x": x.tolist(), "y": y.tolist(), "mmd2": mmd2(x, y)})
    return rows


def manifolds() -> list[dict]:
    rng = np.random.default_rng(4)
    rows = []
    for n, m, d, shift, scale, k in [
        (60, 60, 3, 0.8, 0.7, 3), (40, 55, 2, 0.0, 0.3, 3), (30, 30, 6, 0.5, 1.0, 5), (20, 20, 2, 1.5, 1.0, 1)
    ]:  # fmt: skip
        data, samples = points(rng, n, d), points(rng, m, d, shift, scale)

        def covered(of, by):
            own = euclidean_distances(by)
            np.fill_diagonal(own, np.inf)
            radius = np.sort(own, axis=1)[:, k - 1]
            return float((euclidean_distances(of, by) <= radius).any(axis=1).mean())

        rows.append(
            {
                "data": data.tolist(),
                "samples": samples.tolist(),
                "k": k,
                "precision": covered(samples, data),
                "recall": covered(data, samples),
            }
        )
    return rows


def classifiers() -> dict:
    rng = np.random.default_rng(5)
    centres = np.array([[0.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.5, 1.5, 1.0]])
    labels = rng.integers(0, 3, 120)
    x = np.round((centres[labels] + rng.normal(size=(120, 3)) * [0.8, 0.8, 8.0]) * 256) / 256
    test = np.round((centres[rng.integers(0, 3, 40)] + rng.normal(size=(40, 3)) * [0.8, 0.8, 8.0]) * 256) / 256
    names = np.array([7, 2, 5])[labels]
    scaled = (x - x.mean(0)) / x.std(0)
    fit = LogisticRegression(C=1.0, tol=1e-12, max_iter=10000).fit(scaled, names)
    p = fit.predict_proba(scaled)
    truth = np.searchsorted(fit.classes_, names)
    loss = -np.log(p[np.arange(120), truth]).mean() + 0.5 / 120 * (fit.coef_**2).sum()
    knn = {}
    for k in (1, 4, 7):
        # With ties this rule of ours is not scikit-learn's: of the labels with the most votes, the nearest's.
        order = np.argsort(euclidean_distances(test, x), axis=1, kind="stable")[:, :k]
        ours = []
        for row in order:
            votes = [names[i] for i in row]
            most = max(votes.count(v) for v in votes)
            ours.append(int(next(v for v in votes if votes.count(v) == most)))
        theirs = KNeighborsClassifier(k, algorithm="brute").fit(x, names).predict(test)
        sure = [i for i, row in enumerate(order) if len({c for c in names[row] if
                list(names[row]).count(c) == max(list(names[row]).count(v) for v in names[row])}) == 1]  # fmt: skip
        assert all(ours[i] == theirs[i] for i in sure), k
        knn[str(k)] = ours
    return {
        "train": x.tolist(),
        "labels": names.tolist(),
        "test": test.tolist(),
        "knn": knn,
        "logistic_loss": float(loss),
        "logistic_labels": fit.predict((test - x.mean(0)) / x.std(0)).tolist(),
        "logistic_train_accuracy": float((fit.predict(scaled) == names).mean()),
        # of standardised coordinates, centred over the classes
        "logistic_weight": (fit.coef_ - fit.coef_.mean(0)).tolist(),
    }


def labellings() -> list[dict]:
    rng = np.random.default_rng(6)
    rows = []
    for n, a_count, b_count, noise in [(200, 10, 10, 0.3), (100, 4, 7, 0.6), (50, 6, 3, 0.2), (30, 3, 3, 0.0)]:
        b = rng.integers(0, b_count, n)
        a = np.where(rng.random(n) < noise, rng.integers(0, a_count, n), (b * 3 + 1) % a_count)
        table = np.zeros((a_count, b_count))
        np.add.at(table, (a, b), 1)
        at = linear_sum_assignment(-table)
        rows.append(
            {
                "clusters": a.tolist(),
                "labels": b.tolist(),
                "right": int(table[at].sum()),
                "nmi": float(normalized_mutual_info_score(b, a)),
            }
        )
    return rows


def curves() -> list[dict]:
    rng = np.random.default_rng(7)
    rows = []
    for n, shift, levels in [(100, 1.0, 0), (60, -0.5, 8), (40, 0.0, 3)]:
        positive = rng.random(n) < 0.3
        scores = rng.normal(size=n) + shift * positive
        if levels:
            scores = np.round(scores * levels / 4)
        rows.append(
            {
                "scores": scores.tolist(),
                "positive": positive.tolist(),
                "auroc": float(roc_auc_score(positive, scores)),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=pathlib.Path, default=FILE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    made = {
        "importance": importance(),
        "latents": latents(),
        "kernels": kernels(),
        "manifolds": manifolds(),
        "classifiers": classifiers(),
        "labellings": labellings(),
        "curves": curves(),
    }
    text = json.dumps(made, separators=(",", ":")) + "\n"
    if options.check:
        same = json.loads(options.file.read_text()) == json.loads(text)
        print("the same" if same else f"{options.file} differs")
        return 0 if same else 1
    options.file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
