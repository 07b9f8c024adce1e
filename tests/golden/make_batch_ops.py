#!/usr/bin/env python3
"""Samples, objectives and classes in PyTorch: values and gradients, in float64.

--write DIR makes DIR/batch_ops.json, which tests/ops/golden_batch_test.cpp reads: for each operator
its attributes in cuvae's words, its inputs, its output, and the gradients of sum(y * cotangent)
with respect to the inputs. Element i may differ by a small multiple of `scale` (of its list, or of
all). Needs PyTorch (scripts/peers-venv).
"""

from __future__ import annotations

import argparse
import json
import os

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Few digits, so that the file is small and floats hold them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.round(torch.randn(*shape, generator=generator, dtype=torch.float64) * 64) / 64


def rows(*values: list[float]) -> torch.Tensor:
    """What floats hold, as they hold it."""
    return torch.tensor(values, dtype=torch.float32).to(torch.float64)


def case(name: str, op: str, attrs: dict, inputs: list[torch.Tensor], run, scale=None) -> dict:
    """scale(output): the size of the terms that each element of it is the sum of."""
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    y = run(*leaves)
    cotangent = noise(*y.shape, seed=len(name))
    gradients = torch.autograd.grad((y * cotangent).sum(), leaves)

    def tensor(x: torch.Tensor) -> dict:
        return {"shape": list(x.shape), "values": [float(f"{v:.15g}") for v in x.flatten().tolist()]}

    result = {"name": name, "op": op, "attrs": attrs, "inputs": [tensor(x) for x in inputs],
              "output": tensor(y.detach()), "cotangent": tensor(cotangent),
              "gradients": [tensor(g) for g in gradients]}
    if scale is not None:
        result["scale"] = scale.flatten().tolist()
    return result


def class_cases() -> list[dict]:
    cases = []
    # From both ends of what a head may say, and one where all classes are alike.
    extreme = rows([1e4, 0, -1e4, 1, -1, 3], [-1e4, -1e4, -1e4, -9999, -9998, -10010],
                   [1e4, 1e4, 1e4, 9999, 1e4, 9990], [88, 89, 90, -88, 0, 1e-3],
                   [2, 2, 2, 2, 2, 2], [-1e4, 1e4, 0, 0, 0, 0])
    for op, run in (("softmax", lambda x: torch.softmax(x, 1)),
                    ("log_softmax", lambda x: torch.log_softmax(x, 1))):
        cases.append(case(f"{op}_plain", op, {}, [noise(4, 7, seed=1)], run))
        cases.append(case(f"{op}_one", op, {}, [noise(3, 1, seed=2)], run))
        cases.append(case(f"{op}_extreme", op, {}, [extreme], run))
    return cases


def objective_cases() -> list[dict]:
    def kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0))

    def exact(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return 0.5 * (mean ** 2 + (torch.expm1(logvar) - logvar))

    def terms(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return 0.5 * (mean ** 2 + torch.expm1(logvar).abs() + logvar.abs())

    cases = [case("kl_plain", "gaussian_kl_elements", {}, [noise(3, 5, seed=3), noise(3, 5, seed=4)],
                  kl)]
    # Where the textbook's form cancels: the same from expm1.
    mean = rows([0, 1e-3, 1e-4, 0, 0], [0, 1e-8, 1e3, 1, -1])
    logvar = rows([0, 1e-3, -1e-4, 1e-5, -1e-6], [1e-8, 0, -100, 80, 30])
    cases.append(case("kl_extreme", "gaussian_kl_elements", {}, [mean, logvar], exact,
                      terms(mean, logvar)))
    x = rows([-3, 0, 0.4, 0.6], [0.5001, 0.4999, 1e4, -1e4])
    cases.append(case("floor", "floor", {"level": 0.5}, [x], lambda v: v.clamp(min=0.5)))
    counts = rows([0, 1e-8, 1e-3, 1], [255, 1e6, 1e20, 3e38])
    cases.append(case("log1p", "log1p", {}, [counts], torch.log1p,
                      torch.log1p(counts)))
    return cases


def sample_cases() -> list[dict]:
    cases = []
    for name, shape in (("vector", (6,)), ("rows", (6, 3)), ("images", (6, 2, 2, 3))):
        rest = shape[1:]
        cases.append(case(f"repeat_{name}", "repeat_rows", {"times": 4}, [noise(*shape, seed=5)],
                          lambda x: x.repeat_interleave(4, 0)))
        cases.append(case(f"mean_{name}", "segment_sum", {"times": 3, "factor": 1 / 3},
                          [noise(*shape, seed=6)],
                          lambda x, rest=rest: x.view(2, 3, *rest).mean(1)))
        cases.append(case(f"sum_{name}", "segment_sum", {"times": 2}, [noise(*shape, seed=7)],
                          lambda x, rest=rest: x.view(3, 2, *rest).sum(1)))
    cases.append(case("row_scale", "row_scale", {}, [noise(5, 3, seed=8), noise(5, seed=9)],
                      lambda x, w: w[:, None] * x))
    # An importance-weighted bound of three samples for each row, as Burda et al. write it.
    cases.append(case("weights_of_samples", "softmax", {}, [noise(4, 3, seed=10) * 40],
                      lambda x: F.softmax(x, 1)))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="DIR", required=True)
    options = parser.parse_args()
    cases = class_cases() + objective_cases() + sample_cases()
    with open(os.path.join(options.write, "batch_ops.json"), "w", encoding="ascii") as file:
        made_by = f"tests/golden/make_batch_ops.py, PyTorch {torch.__version__}"
        json.dump({"made_by": made_by, "cases": cases}, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
