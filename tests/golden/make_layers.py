#!/usr/bin/env python3
"""Layers of images in PyTorch: values and gradients, in float64.

--write DIR makes DIR/layers.json, which tests/ops/golden_images_test.cpp reads: for each layer its
attributes in cuvae's words, its inputs, its outputs, and the gradients of sum(y * cotangent) with
respect to the inputs. Needs PyTorch (scripts/peers-venv).
"""

from __future__ import annotations

import argparse
import json
import os

import torch
import torch.nn.functional as F


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Few digits, so that the file is small and floats hold them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.round(torch.randn(*shape, generator=generator, dtype=torch.float64) * 64) / 64


def case(name: str, op: str, attrs: dict, inputs: list[torch.Tensor], run) -> dict:
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    y = run(*leaves)
    cotangent = noise(*y.shape, seed=len(name))
    gradients = torch.autograd.grad((y * cotangent).sum(), leaves)

    def tensor(x: torch.Tensor) -> dict:
        return {"shape": list(x.shape), "values": [float(f"{v:.12g}") for v in x.flatten().tolist()]}

    return {"name": name, "op": op, "attrs": attrs, "inputs": [tensor(x) for x in inputs],
            "output": tensor(y.detach()), "cotangent": tensor(cotangent),
            "gradients": [tensor(g) for g in gradients]}


def conv_cases() -> list[dict]:
    cases = []
    for name, x, w, options in (
            ("plain", (2, 3, 5, 6), (4, 3, 3, 3), {}),
            ("padded", (1, 2, 4, 4), (3, 2, 3, 3), {"padding": 1}),
            ("down", (2, 2, 8, 6), (3, 2, 4, 4), {"stride": 2, "padding": 1}),
            ("rest", (1, 2, 7, 6), (2, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
            ("dilated", (1, 2, 7, 8), (2, 2, 3, 3), {"dilation": 2, "padding": 2, "stride": 2})):
        attrs = {key: ",".join(map(str, (v, v) if isinstance(v, int) else v))
                 for key, v in options.items()}
        inputs = [noise(*x, seed=1), noise(*w, seed=2), noise(w[0], seed=3)]
        cases.append(case(f"conv2d_{name}", "conv2d", attrs, inputs,
                          lambda a, b, c, o=options: F.conv2d(a, b, c, **o)))
    for name, x, w, options in (
            ("plain", (2, 3, 4, 3), (3, 2, 3, 3), {}),
            ("up", (1, 3, 3, 4), (3, 2, 4, 4), {"stride": 2, "padding": 1}),
            ("more", (1, 2, 3, 4), (2, 3, 3, 3),
             {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
            ("dilated", (1, 2, 3, 4), (2, 2, 3, 2), {"stride": 3, "dilation": 2})):
        attrs = {key: ",".join(map(str, (v, v) if isinstance(v, int) else v))
                 for key, v in options.items()}
        inputs = [noise(*x, seed=4), noise(*w, seed=5), noise(w[1], seed=6)]
        cases.append(case(f"conv_transpose2d_{name}", "conv_transpose2d", attrs, inputs,
                          lambda a, b, c, o=options: F.conv_transpose2d(a, b, c, **o)))
    return cases


def pool_cases() -> list[dict]:
    x = noise(2, 2, 7, 6, seed=7)
    ties = torch.round(x)
    cases = []
    for name, source, kernel, options in (("half", x, 2, {}),
                                          ("overlapping", x, 3, {"stride": 2, "padding": 1}),
                                          ("ties", ties, 3, {"stride": 1, "padding": 1})):
        attrs = {"kernel": str(kernel)} | {key: str(v) for key, v in options.items()}
        for op, run in (("max_pool2d", F.max_pool2d), ("avg_pool2d", F.avg_pool2d)):
            cases.append(case(f"{op}_{name}", op, attrs, [source],
                              lambda a, r=run, k=kernel, o=options: r(a, k, **o)))
    cases.append(case("upsample2d", "upsample2d", {"factor": "2"}, [x],
                      lambda a: F.interpolate(a, scale_factor=2, mode="nearest")))
    return cases


def norm_cases() -> list[dict]:
    cases = []
    for name, shape in (("rows", (5, 6)), ("images", (3, 6, 3, 2))):
        for offset in (0.0, 1000.0):
            x = noise(*shape, seed=8) + offset
            suffix = name + ("_thousands" if offset else "")
            weight, bias = noise(6, seed=9), noise(6, seed=10)
            cases.append(case(f"batch_{suffix}", "norm", {"kind": "batch"}, [x, weight, bias],
                              lambda a, w, b: F.batch_norm(a, None, None, w, b, training=True)))
            cases.append(case(f"group_{suffix}", "norm", {"kind": "group", "groups": 3},
                              [x, weight, bias], lambda a, w, b: F.group_norm(a, 3, w, b)))
            inner = shape[1:]
            flat = [noise(*inner, seed=11).flatten(), noise(*inner, seed=12).flatten()]
            cases.append(case(
                f"layer_{suffix}", "norm", {"kind": "layer"}, [x, *flat],
                lambda a, w, b, s=inner: F.layer_norm(a, s, w.reshape(s), b.reshape(s))))
    return cases


def running() -> dict:
    """Two steps of a batch norm's running statistics, and what it then does in evaluation."""
    norm = torch.nn.BatchNorm2d(3, momentum=0.3, dtype=torch.float64)
    batches = [noise(2, 3, 2, 2, seed=20), noise(2, 3, 2, 2, seed=21) + 3]
    for batch in batches:
        norm(batch)
    norm.eval()
    return {"momentum": 0.3,
            "batches": [b.flatten().tolist() for b in batches],
            "running_mean": norm.running_mean.tolist(), "running_var": norm.running_var.tolist(),
            "num_batches_tracked": int(norm.num_batches_tracked),
            "eval": norm(batches[0]).flatten().tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="DIR", required=True)
    options = parser.parse_args()
    golden = {"made_by": f"tests/golden/make_layers.py, PyTorch {torch.__version__}",
              "cases": conv_cases() + pool_cases() + norm_cases(), "running": running()}
    with open(os.path.join(options.write, "layers.json"), "w", encoding="utf-8") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
