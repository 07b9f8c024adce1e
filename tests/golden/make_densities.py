#!/usr/bin/env python3
"""Log-densities, logsumexps and kernel means in PyTorch: values and gradients, in float64.

--write DIR makes DIR/densities.json, which tests/ops/golden_densities_test.cpp and
tests/model/prior_test.cpp read: for each case its attributes in cuvae's words, its inputs (null: left
out), its output, and the gradients of sum(y * cotangent). Inputs are floats, exactly. SciPy must agree
with the values, else the script ends with status 1. Needs PyTorch and SciPy (scripts/peers-venv).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys

import numpy as np
import scipy.special
import scipy.stats
import torch

INF = float("inf")


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Few digits, so that the file is small and floats hold them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.round(torch.randn(*shape, generator=generator, dtype=torch.float64) * 64) / 64


def floats(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).double()


def number(v: float) -> float | str:
    """JSON has no infinities."""
    if math.isnan(v):
        sys.exit("a golden value is not a number")
    return float(f"{v:.12g}") if math.isfinite(v) else ("-inf" if v < 0 else "inf")


def tensor(x: torch.Tensor | None) -> dict | None:
    if x is None:
        return None
    return {"shape": list(x.shape), "values": [number(v) for v in x.flatten().tolist()]}


def agree(name: str, ours: torch.Tensor, other: np.ndarray) -> None:
    ours = ours.detach().numpy()
    if not np.allclose(ours, other, rtol=1e-11, atol=1e-11, equal_nan=False):
        sys.exit(f"{name}: PyTorch has {ours}, SciPy {other}")


def case(name: str, op: str, attrs: dict, inputs: list, run, check=None, sharp=False) -> dict:
    """`sharp`: each element is to be right relative to itself."""
    leaves = [None if x is None else x.clone().requires_grad_(True) for x in inputs]
    y = run(*leaves)
    if check is not None:
        agree(name, y, check(*[None if x is None else x.numpy() for x in inputs]))
    cotangent = noise(*y.shape, seed=len(name))
    cotangent[cotangent == 0] = 0.5
    # A row of -inf has no gradient; times a cotangent it would make a NaN of the sum.
    finite = torch.where(torch.isfinite(y), y, torch.zeros_like(y))
    gradients = torch.autograd.grad((finite * cotangent).sum(), [x for x in leaves if x is not None])
    return {"name": name, "op": op, "attrs": attrs, "sharp": sharp,
            "inputs": [tensor(x) for x in inputs], "output": tensor(y.detach()),
            "cotangent": tensor(cotangent), "gradients": [tensor(g) for g in gradients]}


def log_normal(z, mean, logvar):
    mean = torch.zeros(()).double() if mean is None else mean
    logvar = torch.zeros(()).double() if logvar is None else logvar
    return torch.distributions.Normal(mean, torch.exp(logvar / 2), validate_args=False).log_prob(z)


def scipy_normal(z, mean, logvar):
    return scipy.stats.norm.logpdf(z, 0 if mean is None else mean,
                                   1 if logvar is None else np.exp(logvar / 2))


def normal_cases() -> list[dict]:
    z, mean, logvar = noise(5, 4, seed=1), noise(5, 4, seed=2), noise(5, 4, seed=3)
    extreme = [floats([[v] for v in column]) for column in zip(
        (1e3, 0, -20), (1e3, 0, 20), (-1e3, 1e3, 20), (1e3, 999, -20), (1e-6, 0, -100),
        (1e3, 0, 100), (0, 0, -100), (0, 0, 100), (1e-20, 0, -100))]

    def run(a, b=None, c=None):
        return log_normal(a, b, c).sum(1)

    def check(a, b=None, c=None):
        return scipy_normal(a, b, c).sum(1)

    op = "normal_log_density"
    return [case("normal", op, {}, [z, mean, logvar], run, check),
            case("normal_standard", op, {}, [z], run, check),
            case("normal_mean", op, {}, [z, mean], run, check),
            case("normal_logvar", op, {}, [z, None, logvar], run, check),
            case("normal_extreme", op, {}, extreme, run, check, sharp=True)]


def pairs(z, mean, logvar):
    return log_normal(z[:, None, :], mean[None], logvar[None])  # [N, M, d]


def scipy_pairs(z, mean, logvar):
    return scipy_normal(z[:, None, :], mean[None], logvar[None])


def extreme_pairs() -> list[torch.Tensor]:
    return [floats([[1e3], [0.25], [-1e3]]), floats([[0], [900], [0.5]]), floats([[-20], [20], [100]])]


def pair_cases() -> list[dict]:
    inputs = [noise(5, 4, seed=4), noise(3, 4, seed=5), noise(3, 4, seed=6)]

    def run(a, b, c):
        return pairs(a, b, c).sum(2)

    def check(a, b, c):
        return scipy_pairs(a, b, c).sum(2)

    return [case("pair", "pair_log_density", {}, inputs, run, check),
            case("pair_extreme", "pair_log_density", {}, extreme_pairs(), run, check, sharp=True)]


def weights(attrs: dict, rows: int, columns: int) -> np.ndarray:
    """log w(n, m), the stratified ones by flat indices as the authors of beta-TCVAE have them."""
    kind = attrs.get("importance", "none")
    if kind == "none":
        return np.zeros((rows, columns))
    data = attrs["dataset"]
    if kind == "mws":
        return np.full((rows, columns), -math.log(data * columns))
    m = columns - 1
    stratified = (data - m) / (data * m)
    w = np.full((rows, columns), 1 / m)
    w.reshape(-1)[::columns] = 1 / data
    w.reshape(-1)[1::columns] = stratified
    w[m - 1, 0] = stratified
    return np.log(w)


ATTRS = {"none": {}, "mws": {"importance": "mws", "dataset": 50},
         "mss": {"importance": "mss", "dataset": 50}}


def marginal_cases() -> list[dict]:
    def one(name, attrs, inputs, sharp=False):
        w = weights(attrs, len(inputs[0]), len(inputs[1]))

        def run(a, b, c):
            return torch.logsumexp(pairs(a, b, c) + torch.from_numpy(w)[:, :, None], 1).sum(1)

        def check(a, b, c):
            return scipy.special.logsumexp(scipy_pairs(a, b, c) + w[:, :, None], axis=1).sum(1)

        return case(name, "marginal_log_density", attrs, inputs, run, check, sharp)

    cases = []
    for kind, attrs in ATTRS.items():
        cases.append(one(f"marginal_{kind}", attrs,
                         [noise(5, 3, seed=7), noise(5, 3, seed=8), noise(5, 3, seed=9)]))
    cases.append(one("marginal_of_two", ATTRS["mss"],
                     [noise(2, 3, seed=10), noise(2, 3, seed=11), noise(2, 3, seed=12)]))
    cases.append(one("marginal_wide", ATTRS["mws"],
                     [noise(5, 3, seed=13), noise(7, 3, seed=14), noise(7, 3, seed=15)]))
    cases.append(one("marginal_extreme", {}, extreme_pairs(), sharp=True))
    return cases


def logsumexp_cases() -> list[dict]:
    def one(name, attrs, inputs, sharp=False):
        w = weights(attrs, *inputs[0].shape)
        normalise = attrs.get("normalise", 0) == 1

        def run(x, bias=None):
            total = x + torch.from_numpy(w)
            if bias is not None:
                total = total + (torch.log_softmax(bias, 0) if normalise else bias)
            # PyTorch's gradient of a row of -inf is NaN; its limit is 0, and so is ours.
            some = torch.isfinite(total).any(1)
            y = torch.full((len(total),), -INF, dtype=torch.float64)
            return y.masked_scatter(some, torch.logsumexp(total[some], 1))

        def check(x, bias=None):
            total = x + w
            if bias is not None:
                total = total + (scipy.special.log_softmax(bias) if normalise else bias)
            return scipy.special.logsumexp(total, axis=1)

        return case(name, "logsumexp", attrs, inputs, run, check, sharp)

    x, bias = noise(5, 5, seed=16), noise(5, seed=17)
    large = floats([[1e4, 9999, -1e4], [-1e4, -1e4, -9999], [1e4, 1e4, 1e4], [0, -1e4, 1]])
    gaps = floats([[-INF, -INF, -INF], [-INF, 2, 1], [0.5, -INF, -INF]])
    normalised = {"normalise": 1}
    return [case_ for kind, attrs in ATTRS.items() for case_ in (
        one(f"logsumexp_{kind}", attrs, [x]), one(f"logsumexp_{kind}_bias", attrs, [x, bias]),
        one(f"logsumexp_{kind}_normalised", attrs | normalised, [x, bias]))] + [
        one("logsumexp_large", {}, [large], sharp=True),
        one("logsumexp_large_normalised", normalised, [large, floats([1, 2, 3])], sharp=True),
        one("logsumexp_large_logits", normalised, [floats([[1, 2, 3], [3, 1, 0]]),
                                                   floats([1e4, 9999, -1e4])]),
        one("logsumexp_gaps", {}, [gaps]),
        one("logsumexp_gaps_normalised", normalised, [gaps, floats([1, 2, 3])])]


def kernel_cases() -> list[dict]:
    def one(name, kernel, bandwidth, inputs, skip=0):
        attrs = {"kernel": kernel, "bandwidth": bandwidth} | ({"skip_diagonal": 1} if skip else {})

        def values(squared, xp):
            if kernel == "rbf":
                return xp.exp(-squared / (2 * bandwidth**2))
            return bandwidth / (bandwidth + squared)

        def run(z, y):
            k = values(((z[:, None] - y[None]) ** 2).sum(2), torch)
            if skip:
                k = k * (1 - torch.eye(len(z), dtype=torch.float64))
            return k.sum(1) / (len(y) - skip)

        def check(z, y):
            from scipy.spatial.distance import cdist
            k = values(cdist(z, y, "sqeuclidean"), np)
            if skip:
                np.fill_diagonal(k, 0)
            return k.sum(1) / (len(y) - skip)

        return case(name, "kernel_mean", attrs, inputs, run, check)

    z, y, same = noise(5, 3, seed=18), noise(4, 3, seed=19), noise(5, 3, seed=20)
    return [one(f"kernel_{k}{suffix}", k, 1.25, [z, y], 0) if suffix == "" else
            one(f"kernel_{k}{suffix}", k, 0.75, [z, same], 1)
            for k in ("rbf", "imq") for suffix in ("", "_skipped")] + [
        one(f"kernel_{k}_far", k, 2.0, [z * 1000, y * 1000]) for k in ("rbf", "imq")]


def mixture() -> dict:
    """log p(z) of a mixture of Gaussians, by SciPy alone."""
    z, means, logvars = noise(6, 3, seed=21), noise(4, 3, seed=22), noise(4, 3, seed=23)
    logits = noise(4, seed=24)
    terms = [scipy.stats.multivariate_normal(m, np.diag(np.exp(v))).logpdf(z.numpy())
             for m, v in zip(means.numpy(), logvars.numpy())]
    log_p = scipy.special.logsumexp(
        np.stack(terms, 1) + scipy.special.log_softmax(logits.numpy()), axis=1)
    return {"z": tensor(z), "logits": tensor(logits), "means": tensor(means),
            "logvars": tensor(logvars), "log_density": [number(v) for v in log_p]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="DIR", required=True)
    options = parser.parse_args()
    golden = {"made_by": f"tests/golden/make_densities.py, PyTorch {torch.__version__}, "
                         f"SciPy {scipy.__version__}",
              "cases": normal_cases() + pair_cases() + marginal_cases() + logsumexp_cases() +
              kernel_cases(), "mixture": mixture()}
    with open(os.path.join(options.write, "densities.json"), "w", encoding="utf-8") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
