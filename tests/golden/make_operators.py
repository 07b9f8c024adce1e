#!/usr/bin/env python3
"""Operators one by one in PyTorch, NumPy and SciPy: values and gradients, in float64.

--write DIR makes DIR/operators.json, which tests/ops/golden_operators_test.cpp reads: dense layers,
activations, arithmetic, latents, likelihoods, what happens to gradients and weights, labels, and
random draws. Each case has the operator's attributes in cuvae's words, its inputs (null: left out;
`constant`: nothing is derived by it; `state`: changed in place), its outputs (null: not looked at)
and, where there is one, the gradient of sum(output * cotangent) with respect to each other input.
Inputs are floats, exactly. Philox and the shuffle are those of shuffle.py. Needs PyTorch
and SciPy (scripts/peers-venv, `pip install scipy`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from torch.distributions import Laplace, Multinomial, NegativeBinomial, Normal, Poisson, kl_divergence
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shuffle import WORD, philox4x32, shuffle as shuffled

SEED, STEP = 0x123456789ABCDEF, 0x100000003


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Few digits, so that the file is small and floats hold them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.round(torch.randn(shape, generator=generator, dtype=torch.float64) * 64) / 64


def unit(*shape: int, seed: int) -> torch.Tensor:
    """Pixels as bytes give them, both ends among them."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, shape, generator=generator)
    levels.view(-1)[:2] = torch.tensor([0, 255])
    return floats((levels / 255).tolist())


def floats(values: list | float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).double()


def integers(values: list, dtype: str = "i64") -> dict:
    return {"shape": list(np.shape(values)), "dtype": dtype, "constant": True,
            "values": np.ravel(values).tolist()}


def number(v: float) -> float:
    if not math.isfinite(v):
        sys.exit(f"a golden value is {v}")
    return float(f"{v:.15g}")


def tensor(x: torch.Tensor) -> dict:
    return {"shape": list(x.shape), "values": [number(v) for v in x.flatten().tolist()]}


def given(x: torch.Tensor) -> dict:
    """To the last digit, since differences of inputs may be results."""
    return {"shape": list(x.shape), "values": x.flatten().tolist()}


def constant(x: torch.Tensor) -> dict:
    return given(x) | {"constant": True}


def state(x: torch.Tensor) -> dict:
    return given(x) | {"state": True}


def agree(name: str, ours: torch.Tensor, other: np.ndarray, rtol: float = 1e-11) -> None:
    if not np.allclose(ours.detach().numpy(), other, rtol=rtol, atol=1e-11):
        sys.exit(f"{name}: PyTorch has {ours.tolist()}, SciPy {np.asarray(other).tolist()}")


def value(name: str, op: str, attrs: dict, inputs: list, *outputs: torch.Tensor | None,
          scale: torch.Tensor | None = None, drawn: bool = False, sharp: bool = False,
          loose: str | None = None) -> dict:
    """A limit is of the largest element of a tensor; of each itself where `sharp`, of `scale` in the
    first output; `drawn`: with normals, whose floats have an arithmetic of their own; `loose`: why
    there are elements for which 0 would pass."""
    case = {"name": name, "op": op, "attrs": attrs,
            "inputs": [given(x) if isinstance(x, torch.Tensor) else x for x in inputs],
            "outputs": [None if y is None else tensor(y.detach()) for y in outputs]}
    if scale is not None:
        case["scale"] = [number(v) for v in scale.flatten().tolist()]
    for word, what in (("drawn", drawn), ("sharp", sharp), ("loose", loose)):
        if what:
            case[word] = what
    return case


def derived(name: str, op: str, attrs: dict, inputs: list, run, check=None, scale=None,
            **how) -> dict:
    """run: of the tensors among `inputs`, one output. check: the same by SciPy. scale(y)."""
    leaves = [x.clone().requires_grad_(True) for x in inputs if isinstance(x, torch.Tensor)]
    y = run(*leaves)
    if check is not None:
        agree(name, y, check(*[x.detach().numpy() for x in leaves]))
    cotangent = noise(*y.shape, seed=len(name))
    cotangent[cotangent == 0] = 0.5
    case = value(name, op, attrs, inputs, y, scale=None if scale is None else scale(y.detach()),
                 **how)
    case["cotangent"] = tensor(cotangent)
    case["gradients"] = [tensor(g) for g in torch.autograd.grad((y * cotangent).sum(), leaves)]
    return case


# Dense layers, activations, arithmetic ---------------------------------------------------------


def linear_cases() -> list[dict]:
    cases = []
    for name, b, i, o in (("plain", 5, 7, 3), ("row", 1, 9, 4), ("thin", 6, 1, 5), ("one", 3, 8, 1)):
        x, w, bias = noise(b, i, seed=1), noise(o, i, seed=2), noise(o, seed=3)
        cases.append(derived(f"linear_{name}", "linear", {}, [x, w, bias], F.linear))
        cases.append(derived(f"linear_{name}_no_bias", "linear", {}, [x, w], F.linear))
    cases.append(derived("linear_thousands", "linear", {},
                         [noise(4, 33, seed=4) * 1000, noise(5, 33, seed=5), noise(5, seed=6)],
                         F.linear))
    return cases


def bound_logvar(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return torch.where(size <= 10, x, torch.sign(x) * (10 + 10 * torch.tanh((size - 10) / 10)))


ACTIVATIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "elu": F.elu, "gelu": F.gelu, "silu": F.silu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    # PyTorch's own turns into x at 20; the gradient of it there is 2e-9 too large.
    "softplus": lambda x: F.softplus(x, threshold=40), "bound_logvar": bound_logvar,
}


def activation_cases() -> list[dict]:
    sizes = [1e-30, 1e-8, 1e-3, 0.5, 1, 3, 7, 10.5, 17, 30, 60, 100, 1000, 1e4]
    extreme = floats([-v for v in reversed(sizes)] + [0.0] + sizes)
    cases = []
    for kind, run in ACTIVATIONS.items():
        cases.append(derived(f"{kind}_plain", "activation", {"kind": kind},
                             [noise(4, 6, seed=7)], run))
        # Phi loses what it is near 0 to the rounding of 1; the others are right of themselves.
        loose = {"gelu": "Phi is 1 + erf", "silu": None, "softplus": None, "relu": None,
                 "leaky_relu": None}.get(kind, "the derivative is made of the output, near its limit")
        cases.append(derived(f"{kind}_extreme", "activation", {"kind": kind}, [extreme], run,
                             scale=lambda y, k=kind: y.abs() + 1e-31 +
                             (extreme.abs().clamp(max=10) if k == "gelu" else 0),
                             sharp=loose is None, loose=loose))
    for kind, alpha in (("leaky_relu", 0.25), ("leaky_relu", 0.0), ("elu", 0.5)):
        run = ((lambda x, a=alpha: F.leaky_relu(x, a)) if kind == "leaky_relu"
               else (lambda x, a=alpha: F.elu(x, a)))
        cases.append(derived(f"{kind}_{alpha}", "activation", {"kind": kind, "alpha": alpha},
                             [noise(4, 6, seed=8)], run))
    return cases


def arithmetic_cases() -> list[dict]:
    a, b = noise(3, 5, seed=9), noise(3, 5, seed=10)
    hyper = noise(1, 2, seed=11)
    cases = [derived("add", "add", {}, [a, b], torch.add),
             derived("mul", "mul", {}, [a, b], torch.mul),
             derived("mul_thousands", "mul", {}, [a * 1000, b * 1000], torch.mul),
             derived("scale", "scale", {"factor": -0.75}, [a], lambda x: -0.75 * x),
             derived("scale_by_slot", "scale", {"factor": 2.0, "slot": 1}, [a, constant(hyper)],
                     lambda x: 2 * hyper[0, 1] * x),
             value("scale_by", "scale_by", {}, [a, noise(seed=12)], a * noise(seed=12)),
             value("fill", "fill", {"shape": "2,3", "value": 0.375}, [], torch.full((2, 3), 0.375)),
             value("fill_scalar", "fill", {"shape": "", "value": -7.0}, [], torch.tensor(-7.0)),
             value("detach", "detach", {}, [a], a),
             value("log_count", "log_count", {}, [floats([0, 0.5, 1, 2, 255, 1e6, 1e30])],
                   torch.log(floats([0, 0.5, 1, 2, 255, 1e6, 1e30]).clamp(min=1))),
             value("split", "split", {"sizes": "2,1,2"}, [a], *torch.split(a, [2, 1, 2], 1)),
             derived("concat", "concat", {}, [a, noise(3, 1, seed=13), b],
                     lambda *x: torch.cat(x, 1)),
             derived("reshape", "reshape", {"shape": "3,5,1"}, [a], lambda x: x.view(3, 5, 1))]
    for axis, dim in (("rows", 0), ("cols", 1), ("all", (0, 1))):
        for op in ("sum", "mean"):
            for name, x in (("plain", noise(7, 5, seed=14)), ("row", noise(1, 9, seed=15)),
                            ("thousands", noise(9, 12, seed=16) + 1000)):
                cases.append(derived(f"reduce_{axis}_{op}_{name}", "reduce",
                                     {"axis": axis, "op": op}, [x],
                                     lambda v, o=op, d=dim: getattr(torch, o)(v, d)))
    for axis, x, run in (("rows", noise(5, seed=17), lambda v: v[None].expand(3, 5)),
                         ("cols", noise(3, seed=18), lambda v: v[:, None].expand(3, 5)),
                         ("all", noise(seed=19), lambda v: v.expand(3, 5))):
        cases.append(derived(f"broadcast_{axis}", "broadcast",
                             {"axis": axis, "shape": "3,5", "factor": 0.5}, [x],
                             lambda v, r=run: 0.5 * r(v)))
    return cases


# Latents and likelihoods ------------------------------------------------------------------------


def latent_cases() -> list[dict]:
    def kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0)).sum(1)

    def exact(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return 0.5 * (mean ** 2 + (torch.expm1(logvar) - logvar)).sum(1)

    mean = floats([[0, 1e-3, 1e-4, 0, 0], [1e3, 0, -1e3, 1, -1], [0, 0, 0, 0, 0]])
    logvar = floats([[0, 1e-3, -1e-4, 1e-5, -1e-6], [0, -100, 10, -20, 20], [0, 0, 0, 0, 0]])
    cases = [derived("kl_plain", "gaussian_kl", {}, [noise(5, 4, seed=20), noise(5, 4, seed=21)], kl),
             derived("kl_one_latent", "gaussian_kl", {},
                     [noise(3, 1, seed=22), noise(3, 1, seed=23)], kl),
             # What the textbook's form cancels, from expm1; the terms of a row are not negative.
             derived("kl_extreme", "gaussian_kl", {}, [mean, logvar], exact,
                     scale=lambda y: y + 1e-4, sharp=True)]
    hyper = floats([[25.0, -3.5]])
    for name, x in (("below", 3.25), ("beyond", 40.5)):
        cases.append(derived(f"capacity_{name}", "capacity_gap", {"slot": 0},
                             [floats(x), constant(hyper)], lambda v: (v - hyper[0, 0]).abs()))
    return cases


def bernoulli_cases() -> list[dict]:
    def run(target: torch.Tensor):
        return lambda logits: F.binary_cross_entropy_with_logits(
            logits, target, reduction="none").sum(1)

    cases = []
    for name, logits, target in (
            ("grey", noise(4, 9, seed=24) * 3, unit(4, 9, seed=25)),
            ("binary", noise(4, 9, seed=26) * 3, torch.round(unit(4, 9, seed=27))),
            ("extreme", floats([[-1000, -1000, 1000, 1000, -100, 100, -30, 30, 0],
                                [-1e4, -1e4, 1e4, 1e4, -17, 17, 1e-3, -1e-30, 0]]),
             floats([[0, 1, 0, 1, 0, 1, 0.5, 0.25, 1], [0, 0.5, 0.5, 1, 0, 1, 1, 0, 0]]))):
        cases.append(derived(f"bernoulli_{name}", "bernoulli_nll", {}, [logits, constant(target)],
                             run(target),
                             loose="sigmoid - 1" if name == "extreme" else None))
    # No term cancels another (PyTorch's own do): what is nearly certain has its few nats still.
    sure = floats([[-30, 30, -20], [-80, 80, 40]])
    target = floats([[0, 1, 0], [0, 1, 1]])
    cases.append(value("bernoulli_sure", "bernoulli_nll", {}, [sure, target],
                       torch.logaddexp((1 - 2 * target) * sure, torch.zeros(1)).sum(1), sharp=True))
    return cases


def gaussian_cases() -> list[dict]:
    cases = []
    for sigma in (1.0, 0.3, 1e-3, 1e3):
        target = unit(4, 9, seed=29)
        cases.append(derived(
            f"gaussian_{sigma}", "gaussian_nll", {"sigma": sigma},
            [noise(4, 9, seed=28), constant(target)],
            lambda m, x=target, s=sigma: -Normal(m, s).log_prob(x).sum(1),
            lambda m, x=target, s=sigma: -scipy.stats.norm.logpdf(x.numpy(), m, s).sum(1)))
    for name, mean, target in (("far", [1000, -1000, 1000, 0], [0, 0, 1, 1e3]),
                               ("near", [1e-6, 1 - 1e-6, 0, 1], [0, 1, 0, 1])):
        cases.append(derived(f"gaussian_{name}", "gaussian_nll", {"sigma": 0.1},
                             [floats([mean]), constant(floats([target]))],
                             lambda m, x=floats([target]): -Normal(m, 0.1).log_prob(x).sum(1)))
    return cases


def class_cases() -> list[dict]:
    cases = []
    for name, classes, inner, logits in (("plain", 5, 1, noise(3, 4 * 5, seed=30)),
                                         ("planes", 4, 3, noise(2, 6 * 4, seed=31)),
                                         ("bytes", 256, 2, noise(2, 2 * 256, seed=32) * 4),
                                         ("thousands", 3, 1, noise(3, 2 * 3, seed=33) * 1000)):
        rows, d = logits.shape[0], logits.shape[1] // classes
        labels = torch.randint(0, classes, (rows, d), generator=torch.Generator().manual_seed(34))

        # [B, D / inner, C, inner]: the logits of a class lie in planes of `inner`.
        def planes(x: torch.Tensor, c=classes, i=inner, n=d) -> torch.Tensor:
            return x.view(x.shape[0], n // i, c, i).movedim(2, 1)

        target = labels.view(rows, d // inner, inner)
        cases.append(derived(f"categorical_{name}", "categorical_nll", {"inner": inner},
                             [logits, constant(labels.double())],
                             lambda x, t=target, p=planes: F.cross_entropy(
                                 p(x), t, reduction="none").flatten(1).sum(1),
                             sharp=name == "bytes",
                             loose="p - 1" if name == "thousands" else None))
        level = torch.arange(classes, dtype=torch.float64) / (classes - 1)
        mean = (torch.softmax(planes(logits), 1) * level.view(1, -1, 1, 1)).sum(1).flatten(1)
        cases.append(value(f"categorical_mean_{name}", "categorical_mean",
                           {"classes": classes, "inner": inner}, [logits], mean))
    for name, logits, counts in (
            ("plain", noise(3, 6, seed=35), floats([[1, 0, 4, 2, 0, 9], [0] * 6, [0, 0, 7, 0, 0, 0]])),
            ("extreme", floats([[1000, 0, -1000, 999], [-1000] * 4]),
             floats([[1e6, 0, 0, 1e6], [0, 1e6, 1, 0]]))):
        cases.append(derived(
            f"multinomial_{name}", "multinomial_nll", {}, [logits, constant(counts)],
            lambda x, c=counts: torch.stack([
                -Multinomial(int(n.sum()), logits=row).log_prob(n) if n.sum() > 0
                else row.sum() * 0 for row, n in zip(x, c)]),
            # Stirling's terms of a million are what rounding is to be measured by.
            scale=lambda y, c=counts: y.abs() + torch.special.xlogy(c, c).sum(1) + 1))
    return cases


def likelihood_cases() -> list[dict]:
    """The operator around the formulas, whose values are likelihoods.json's: sums, planes, offset."""
    def soft_floor(x: torch.Tensor, floor: float) -> torch.Tensor:
        return floor + F.softplus(x - floor, threshold=60)

    cases = []
    x = unit(3, 7, seed=36)
    counts = torch.poisson(torch.full((3, 7), 4.0), generator=torch.Generator().manual_seed(37)).double()
    planes = [noise(3, 7, seed=38 + i) for i in range(3)]
    offset = noise(3, seed=41)
    for name, likelihood, attrs, target, shift, inputs, run, scipy_nll in (
            ("gaussian", "gaussian", {}, x, None, planes[:2],
             lambda m, s: -Normal(m, torch.exp(soft_floor(s, -6))).log_prob(x).sum(1),
             lambda m, s: -scipy.stats.norm.logpdf(
                 x, m, np.exp(-6 + np.log1p(np.exp(s + 6)))).sum(1)),
            ("laplace_fixed", "laplace", {"scale": 0.5}, x, None, planes[:1],
             lambda m: -Laplace(m, 0.5).log_prob(x).sum(1),
             lambda m: -scipy.stats.laplace.logpdf(x, m, 0.5).sum(1)),
            ("poisson", "poisson", {}, counts, offset, planes[:1],
             lambda r: -Poisson(torch.exp(r + offset[:, None])).log_prob(counts).sum(1),
             lambda r: -scipy.stats.poisson.logpmf(
                 counts, np.exp(r + offset.numpy()[:, None])).sum(1)),
            ("negative_binomial", "negative_binomial", {}, counts, offset, planes[:2],
             lambda r, t: -NegativeBinomial(
                 torch.exp(t), logits=r + offset[:, None] - t).log_prob(counts).sum(1),
             lambda r, t: -scipy.stats.nbinom.logpmf(
                 counts, np.exp(t), np.exp(t) / (np.exp(t) + np.exp(
                     r + offset.numpy()[:, None]))).sum(1))):
        shifts = None if shift is None else constant(shift)
        cases.append(derived(f"nll_{name}", "nll", {"likelihood": likelihood} | attrs,
                             [constant(target), shifts, *inputs], run, scipy_nll))
    cases.append(value("expectation_poisson", "expectation", {"likelihood": "poisson"},
                       [offset, planes[0]], torch.exp(planes[0] + offset[:, None])))
    return cases


# Gradients and weights --------------------------------------------------------------------------


def gradient_cases() -> list[dict]:
    w = noise(4, 3, seed=42)
    w[0, 0] = 0
    g = noise(4, 3, seed=43)
    cases = []
    for name, l1, l2 in (("l1", 0.25, 0.0), ("l2", 0.0, 0.125), ("both", 0.5, 1.5)):
        leaf = w.clone().requires_grad_(True)
        penalty, = torch.autograd.grad(l1 * leaf.abs().sum() + l2 / 2 * (leaf ** 2).sum(), leaf)
        cases.append(value(f"penalty_{name}", "add_penalty", {"l1": l1, "l2": l2}, [g, w],
                           g + penalty))
    commit, skipped = integers([1]), integers([7]) | {"state": True}
    for name, limit, parts in (("clipped", 1.5, [noise(5, 3, seed=44), noise(4, seed=45)]),
                               ("within", 1e3, [noise(5, 3, seed=44)]), ("off", 0.0, [g]),
                               ("large", 2.0, [floats([1e20, -1e20, 3e18])])):
        leaves = [torch.nn.Parameter(p.clone()) for p in parts]
        for leaf, part in zip(leaves, parts):
            leaf.grad = part.clone()
        norm = torch.nn.utils.clip_grad_norm_(leaves, limit if limit > 0 else math.inf)
        largest = max(range(parts[0].numel()), key=lambda i: parts[0].view(-1)[i].abs())
        factor = leaves[0].grad.view(-1)[largest] / parts[0].view(-1)[largest]
        cases.append(value(f"clip_{name}", "clip_norm", {"limit": limit}, [commit, skipped, *parts],
                           norm, factor, None, None, sharp=True))
    for start in ("plain", "warmup", "corrected"):
        decay, steps = 0.9, 6
        versions = [noise(5, seed=50 + t) for t in range(steps)]
        module = torch.nn.Module()
        module.w = torch.nn.Parameter(versions[0].clone())
        average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        plain, zero, warm = None, torch.zeros(5).double(), versions[0]
        for t, version in enumerate(versions, 1):
            with torch.no_grad():
                module.w.copy_(version)
            average.update_parameters(module)
            before = {"plain": plain, "corrected": zero / (1 - decay ** (t - 1)) if t > 1 else zero,
                      "warmup": warm}[start]
            plain = average.module.w.detach().clone()
            zero = decay * zero + (1 - decay) * version
            d = min(decay, (1 + t) / (10 + t))
            warm = version if t == 1 else d * warm + (1 - d) * version
        after = {"plain": plain, "corrected": zero / (1 - decay ** steps), "warmup": warm}[start]
        before = before.float().double()
        # From the float that the state is: one step of the same average.
        gain = {"plain": 1 - decay, "corrected": (1 - decay) / (1 - decay ** steps),
                "warmup": 1 - min(decay, (1 + steps) / (10 + steps))}[start]
        stepped = before + gain * (versions[-1] - before)
        agree(f"ema_{start}", stepped, after.numpy(), rtol=1e-6)
        cases.append(value(f"ema_{start}", "weight_ema", {"decay": decay, "start": start},
                           [state(before), versions[-1],
                            integers([0, steps - 1, 0, 0, 0]), integers([1])], stepped))
    return cases


# Rows, labels and draws -------------------------------------------------------------------------


PURPOSE = {"latent": 2, "binarisation": 3, "dropout": 4, "augmentation": 5}


def words(purpose: str, stream: int, first: int, count: int, step: int = STEP) -> list[int]:
    result = []
    for group in range(first // 4, (first + count + 3) // 4):
        subsequence = PURPOSE[purpose] << 56 | stream << 40 | group
        result += philox4x32((step & WORD, step >> 32, subsequence & WORD, subsequence >> 32), SEED)
    return result[first % 4:first % 4 + count]


def uniforms(*where, **step) -> np.ndarray:
    return np.array([np.float32(np.float32(w) * np.float32(2.0 ** -32) + np.float32(2.0 ** -33))
                     for w in words(*where, **step)], dtype=np.float64)


def normals(purpose: str, stream: int, first: int, count: int, step: int = STEP) -> np.ndarray:
    """Box and Muller of each pair of words: (r sin, r cos)."""
    begin = first - first % 4
    all_words = words(purpose, stream, begin, first - begin + count + 3, step)
    result = []
    for w0, w1 in zip(all_words[0::2], all_words[1::2]):
        r = math.sqrt(-2 * math.log(float(np.float32(np.float32(w0) * np.float32(2.0 ** -32) +
                                                     np.float32(2.0 ** -33)))))
        turn = 2 * math.pi * (w1 + 0.5) / 2 ** 32
        result += [r * math.sin(turn), r * math.cos(turn)]
    return np.array(result[first - begin:first - begin + count])


CLOCK = integers([SEED, STEP, 2, 0, 0])


def drawn_by(rows: list[int] | None, batch: int, d: int, make) -> torch.Tensor:
    """make(first, count) of each row's elements: those of its place in the batch, or of its key."""
    return torch.tensor(np.stack([make((b if rows is None else rows[b]) * d, d)
                                  for b in range(batch)]))


def draw_cases() -> list[dict]:
    cases = []
    for name, rows in (("batch", None), ("keyed", [7, 60000, 0, 7])):
        key = [] if rows is None else [integers(rows)]
        mean, logvar = noise(4, 5, seed=60), noise(4, 5, seed=61)
        eps = drawn_by(rows, 4, 5, lambda at, n: normals("latent", 3, at, n))
        run = lambda m, v, e=eps: m + e * torch.exp(v / 2)
        case = derived(f"sample_{name}", "sample", {"purpose": PURPOSE["latent"], "stream": 3},
                       [mean, logvar, CLOCK, *key], run, drawn=True)
        case["outputs"].append(tensor(eps))
        cases.append(case)
        x = noise(4, 7, seed=62)
        cases.append(derived(
            f"add_noise_{name}", "add_noise", {"sigma": 0.5, "stream": 1}, [x, CLOCK, *key],
            lambda v, e=drawn_by(rows, 4, 7, lambda at, n: normals("augmentation", 1, at, n)):
            v + 0.5 * e, drawn=True))
        kept = drawn_by(rows, 4, 7, lambda at, n: uniforms("dropout", 2, at, n)) > 0.375
        cases.append(derived(
            f"dropout_{name}", "dropout",
            {"p": 0.375, "stream": 2, "purpose": PURPOSE["dropout"]}, [x, CLOCK, *key],
            lambda v, k=kept: v * k / (1 - 0.375)))
        pixels = unit(4, 9, seed=63)
        u = drawn_by(rows, 4, 9, lambda at, n: uniforms("binarisation", 0, at, n))
        cases.append(value(f"binarise_{name}", "binarise", {"mode": "dynamic", "stream": 0},
                           [pixels, CLOCK, *key], (u <= pixels).double()))
        u = drawn_by(rows, 4, 9, lambda at, n: uniforms("augmentation", 4, at, n))
        cases.append(value(f"dequantise_{name}", "dequantise", {"mode": "dynamic", "stream": 4},
                           [pixels, CLOCK, *key], (torch.round(pixels * 255) + 1 - u) / 256))
    pixels, rows = unit(4, 9, seed=64), [5, 5, 12345, 0]
    u = drawn_by(rows, 4, 9, lambda at, n: uniforms("binarisation", 0, at, n, step=0))
    cases.append(value("binarise_static", "binarise", {"mode": "static", "stream": 0},
                       [pixels, CLOCK, integers(rows)], (u <= pixels).double()))
    cases.append(value("binarise_threshold", "binarise", {"mode": "threshold"}, [pixels],
                       (pixels > 0.5).double()))
    for levels in (2, 5, 256):
        cases.append(value(f"quantise_{levels}", "quantise", {"levels": levels}, [pixels],
                           torch.floor(torch.round(pixels * 255) * levels / 256) / (levels - 1)))
    cases.append(augment_case())
    return cases


def augment_case() -> dict:
    batch, channels, height, width, shift = 6, 2, 4, 5, 2
    d = channels * height * width
    images = unit(batch, channels, height, width, seed=65)
    result = []
    for b, image in enumerate(images):
        first = 4 * b * (1 + (d + 3) // 4)
        at = words("augmentation", 6, first, 4)
        flip = uniforms("augmentation", 6, first, 4)[0] <= 0.5
        down, right = ((w * (2 * shift + 1) >> 32) - shift for w in at[1:3])
        image = image.flip(2) if flip else image
        padded = F.pad(image, (shift,) * 4)
        image = padded[:, shift - down:shift - down + height, shift - right:shift - right + width]
        image = image.flatten() + 0.25 * torch.tensor(normals("augmentation", 6, first + 4, d))
        result.append(image.clamp(0, 1))
    return value("augment", "augment",
                 {"channels": channels, "height": height, "width": width, "flip": 0.5,
                  "shift": shift, "noise": 0.25, "clamp": 1, "stream": 6},
                 [images.flatten(1), CLOCK], torch.stack(result), drawn=True)


def row_cases() -> list[dict]:
    clock = integers([SEED, 9, 2, 31, 0])  # the third epoch, from position 31 on
    cases = []
    for shuffle in (0, 1):
        rows = [shuffled(SEED, 2, 97, p) if shuffle else p for p in range(31, 31 + 16)]
        cases.append(value(f"batch_index_{shuffle}", "batch_index",
                           {"batch": 16, "rows": 97, "shuffle": shuffle}, [clock],
                           torch.tensor(rows).double(), torch.tensor(rows).double()))
    window = torch.randint(0, 256, (6, 4), generator=torch.Generator().manual_seed(66))
    rows = torch.tensor([5, 0, 5, 2])
    scale = float(np.float32(1 / 255))  # a float on every backend, and so are the pixels
    cases.append(value("gather_bytes", "gather", {"scale": scale},
                       [integers(window.tolist(), "u8"), integers(rows.tolist())],
                       window[rows].double() * scale))
    reals = noise(6, 4, seed=67)
    cases.append(value("gather_reals", "gather", {"scale": 2.0, "shift": 0.5},
                       [reals, integers(rows.tolist())],
                       (reals.index_select(0, rows) - 0.5) * 2))
    labels = torch.tensor([3, 0, 9, 1, 1, 4])
    for dtype in ("u8", "i64"):
        inputs = [integers(labels.tolist(), dtype), integers(rows.tolist())]
        cases.append(value(f"one_hot_{dtype}", "one_hot", {"classes": 10}, inputs,
                           F.one_hot(labels[rows], 10).double()))
        cases.append(value(f"label_rows_{dtype}", "label_rows", {}, inputs,
                           labels[rows, None].double()))
    cases.append(value("one_hot_cycle", "one_hot_cycle", {"rows": 7, "classes": 3}, [],
                       F.one_hot(torch.arange(7) % 3, 3).double()))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="DIR", required=True)
    options = parser.parse_args()
    cases = (linear_cases() + activation_cases() + arithmetic_cases() + latent_cases() +
             bernoulli_cases() + gaussian_cases() + class_cases() + likelihood_cases() +
             gradient_cases() + draw_cases() + row_cases())
    with open(os.path.join(options.write, "operators.json"), "w", encoding="ascii") as file:
        made_by = (f"tests/golden/make_operators.py, PyTorch {torch.__version__}, "
                   f"SciPy {scipy.__version__}")
        json.dump({"made_by": made_by, "cases": cases}, file, separators=(",", ":"))
        file.write("\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
