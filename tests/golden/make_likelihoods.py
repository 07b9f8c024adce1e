#!/usr/bin/env python3
"""Golden values of the likelihoods: -log p, its derivatives and the mean, over a grid with extremes.

    python tests/golden/make_likelihoods.py [--check] [FILE]

writes tests/golden/likelihoods.json (--check: compares). Wants SciPy and mpmath. Values are made by
mpmath in 80 digits from the textbook's formulas; where SciPy has the distribution, its logpmf or
logpdf must agree to within the rounding of its own terms. Derivatives are mpmath's numerical ones of
the same formulas, so nothing here is derived by hand. Raw numbers and targets are floats, exactly.

Raw log-scales, log-rates and log-dispersions go through cuvae's soft bounds, as in
src/likelihoods/special.h.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import sys

import mpmath as mp
import numpy as np
import scipy.special
import scipy.stats

mp.mp.dps = 80
FILE = pathlib.Path(__file__).with_name("likelihoods.json")


def f32(x: float) -> float:
    return float(np.float32(x))


def softplus(x):
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def soft_floor(raw, floor):
    return floor + softplus(raw - floor)


def soft_bound(raw):
    size = abs(raw)
    if size <= 20:
        return raw
    return mp.sign(raw) * (20 + 10 * mp.tanh((size - 20) / 10))


# Each: -log p(x | raw), and the mean. `k` holds the constants: trials, offset.


def gaussian(raw, x, k):
    s = soft_floor(raw[1], mp.mpf(-6))
    return ((x - raw[0]) / mp.exp(s)) ** 2 / 2 + s + mp.log(2 * mp.pi) / 2


def laplace(raw, x, k):
    s = soft_floor(raw[1], mp.mpf(-6))
    return abs(x - raw[0]) / mp.exp(s) + s + mp.log(2)


def continuous_bernoulli(raw, x, k):
    # log C + x log p + (1 - x) log(1 - p), C = 2 atanh(1 - 2 p) / (1 - 2 p)
    l = raw[0]
    with mp.extradps(900):  # 1 - p of a logit of 1000
        p = 1 / (1 + mp.exp(-l))
        c = mp.mpf(2) if l == 0 else 2 * mp.atanh(1 - 2 * p) / (1 - 2 * p)
        return -(mp.log(c) + x * mp.log(p) + (1 - x) * mp.log(1 - p))


def continuous_bernoulli_mean(raw, k):
    l = raw[0]
    with mp.extradps(900):
        if l == 0:
            return mp.mpf(1) / 2
        p = 1 / (1 + mp.exp(-l))
        return p / (2 * p - 1) + 1 / (2 * mp.atanh(1 - 2 * p))


def logistic_mass(raw, level, k):
    n = k["trials"]
    b = mp.exp(soft_floor(raw[1], mp.mpf(-7) - mp.log(2)))

    def cdf(v):
        return sigmoid((v - raw[0]) / b)

    low, high = (level - mp.mpf(1) / 2) / n, (level + mp.mpf(1) / 2) / n
    # The digits that both CDFs share: about |x - mean| / (b log 10), of at most 2e6.
    extra = int(min(1e6, abs(level / mp.mpf(n) - raw[0]) / b / mp.mpf("2.3"))) + 450
    with mp.extradps(extra):
        if level == 0:
            return cdf(high)
        if level == n:
            return sigmoid(-(low - raw[0]) / b)
        return cdf(high) - cdf(low)


def discretised_logistic(raw, x, k):
    return -mp.log(logistic_mass(raw, mp.nint(x * k["trials"]), k))


def discretised_logistic_mean(raw, k):
    n = k["trials"]
    b = mp.exp(soft_floor(raw[1], mp.mpf(-7) - mp.log(2)))
    return mp.fsum(sigmoid((raw[0] - (j - mp.mpf(1) / 2) / n) / b) for j in range(1, n + 1)) / n


def beta_binomial(raw, x, k):
    n = k["trials"]
    x = mp.nint(x * n)
    a, b = mp.exp(soft_bound(raw[0])), mp.exp(soft_bound(raw[1]))
    lg = mp.loggamma
    choose = lg(n + 1) - lg(x + 1) - lg(n - x + 1)
    return -(choose + lg(x + a) + lg(n - x + b) - lg(n + a + b) - lg(a) - lg(b) + lg(a + b))


def beta_binomial_mean(raw, k):
    a, b = mp.exp(soft_bound(raw[0])), mp.exp(soft_bound(raw[1]))
    return a / (a + b)


def poisson(raw, x, k):
    m = soft_bound(raw[0] + k["offset"])
    return mp.exp(m) - x * m + mp.loggamma(x + 1)


def poisson_mean(raw, k):
    return mp.exp(soft_bound(raw[0] + k["offset"]))


def negative_binomial(raw, x, k):
    mu, theta = mp.exp(soft_bound(raw[0] + k["offset"])), mp.exp(soft_bound(raw[1]))
    lg = mp.loggamma
    both = mp.log(theta + mu)
    return -(
        lg(x + theta) - lg(theta) - lg(x + 1) + theta * (mp.log(theta) - both) + x * (mp.log(mu) - both)
    )


def zero_inflated_negative_binomial(raw, x, k):
    nb = mp.exp(-negative_binomial(raw, x, k))
    with mp.extradps(900):  # 1 - pi of a logit of 1000
        pi = 1 / (1 + mp.exp(-raw[2]))
        return -mp.log((1 - pi) * nb + (pi if x == 0 else 0))


def zero_inflated_negative_binomial_mean(raw, k):
    return sigmoid(-raw[2]) * poisson_mean(raw, k)


def scipy_nll(name, raw, x, k):
    """SciPy's value and the size of the terms it subtracts, or None where it has no such thing."""
    e = lambda v: float(mp.exp(v))
    if name == "gaussian":
        return -scipy.stats.norm.logpdf(x, raw[0], e(soft_floor(mp.mpf(raw[1]), mp.mpf(-6)))), 1
    if name == "laplace":
        return -scipy.stats.laplace.logpdf(x, raw[0], e(soft_floor(mp.mpf(raw[1]), mp.mpf(-6)))), 1
    if name == "poisson":
        m = soft_bound(mp.mpf(raw[0] + k["offset"]))
        return -scipy.stats.poisson.logpmf(x, e(m)), e(m) + abs(x * float(m)) + x * math.log(x + 2)
    if name == "negative_binomial":
        mu, theta = soft_bound(mp.mpf(raw[0] + k["offset"])), soft_bound(mp.mpf(raw[1]))
        p = float(1 / (1 + mp.exp(mu - theta)))
        if not 1e-3 < p < 1 - 1e-3:
            return None  # p or 1 - p has lost its digits
        size = scipy.special.gammaln(x + e(theta) + 1) + e(theta) * abs(math.log(p))
        return -scipy.stats.nbinom.logpmf(x, e(theta), p), abs(size) + x * abs(math.log1p(-p)) + x
    if name == "beta_binomial":
        n = k["trials"]
        a, b = (e(soft_bound(mp.mpf(v))) for v in raw)
        size = abs(scipy.special.gammaln(n + a + b)) + abs(scipy.special.gammaln(a)) + n + a + b
        return -scipy.stats.betabinom.logpmf(round(x * n), n, a, b), size
    return None


FORMULAS = {
    "gaussian": (gaussian, lambda raw, k: raw[0]),
    "laplace": (laplace, lambda raw, k: raw[0]),
    "continuous_bernoulli": (continuous_bernoulli, continuous_bernoulli_mean),
    "discretised_logistic": (discretised_logistic, discretised_logistic_mean),
    "beta_binomial": (beta_binomial, beta_binomial_mean),
    "poisson": (poisson, poisson_mean),
    "negative_binomial": (negative_binomial, poisson_mean),
    "zero_inflated_negative_binomial": (
        zero_inflated_negative_binomial,
        zero_inflated_negative_binomial_mean,
    ),
}


def grid(name):
    """(raw.., x, offset) of every case."""
    pixel = [0.0, 1 / 255, 0.3, 127 / 255, 1.0]
    level = [j / 255 for j in (0, 1, 77, 128, 254, 255)]
    count = [0, 1, 2, 7, 30, 255, 4096, 1000000]
    if name in ("gaussian", "laplace"):
        for m, s, x in itertools.product([0, 0.37, -1.5, 1000, -1000], [-1000, -8, -6, -1, 0, 2.5, 1000], [0.0, 0.7, -3.0]):
            yield (m, s), x, 0
    elif name == "continuous_bernoulli":
        logits = [0, 1e-30, -1e-4, 0.01, -0.3, 0.69, 0.71, -0.9, 2, -5, 20, 88, -100, 1000, -1000]
        for l, x in itertools.product(logits, pixel):
            yield (l,), x, 0
    elif name == "discretised_logistic":
        # A mean of +-1000 with the smallest scales needs a million digits: left out.
        for m, s, x in itertools.product([0.5, 0.31, -0.2, 1.4, 20], [-1000, -7.7, -5, -3, 0, 4, 1000], level):
            if not (m == 20 and s < -5):
                yield (m, s), x, 0
    elif name == "beta_binomial":
        logs = [-1000, -13.8, -1, 0.7, 4, 18.4, 1000]
        for a, b, x in itertools.product(logs, logs, level):
            yield (a, b), x, 0
    elif name == "poisson":
        for m, x in itertools.product([-1000, -13.8, -1, 0, 0.7, 2, 5.5, 8.3, 13.8, 13.815511, 14, 21, 1000], count):
            yield (m,), x, 0
        yield (0.3,), 40, 3.5
        yield (-9.0,), 4, 9.7
    elif name == "negative_binomial":
        means = [-1000, -13.8, -1, 0.7, 5.5, 13.7, 13.815511, 1000]
        for m, t, x in itertools.product(means, [-1000, -13.8, -3, 0, 1.5, 5, 18.4, 25, 1000], count):
            yield (m, t), x, 0
        yield (0.3, 1.2), 40, 3.5
    else:
        for l, m, t, x in itertools.product([-1000, -2, 0, 3, 1000], [-13.8, -1, 5.5, 13.8], [-13.8, 0, 5, 18.4], [0, 1, 255, 1000000]):
            yield (m, t, l), x, 0
        yield (0.3, 1.2, 0.4), 0, 3.5


def number(v) -> float:
    return float(mp.mpf(v))


def slope(formula, raw, x, k, p):
    """Central difference in 80 digits, of an error of about 1e-40."""
    h = mp.mpf(10) ** -20

    def at(step):
        moved = list(raw)
        moved[p] += step
        return formula(moved, x, k)

    return (at(h) - at(-h)) / (2 * h)


def case(name, raw, x, offset):
    k = {"trials": 255, "offset": mp.mpf(f32(offset))}
    raw = [f32(v) for v in raw]
    x = f32(x)
    formula, mean = FORMULAS[name]
    exact = [mp.mpf(v) for v in raw]
    nll = formula(exact, mp.mpf(x), k)
    checked = scipy_nll(name, raw, x, {**k, "offset": float(k["offset"])})
    if checked is not None and math.isfinite(checked[0]):
        value, size = checked
        if abs(value - number(nll)) > 1e-11 * (size + abs(number(nll)) + 1):
            sys.exit(f"SciPy says {value}, mpmath {number(nll)}: {name} {raw} {x}")
    if name == "laplace" and x == raw[0]:
        gradient = [0.0, number(slope(formula, exact, mp.mpf(x), k, 1))]
    else:
        gradient = [number(slope(formula, exact, mp.mpf(x), k, p)) for p in range(len(raw))]
    return {
        "raw": raw,
        "x": x,
        "offset": f32(offset),
        "nll": number(nll),
        "grad": gradient,
        "mean": number(mean(exact, k)),
    }


def special():
    """lgamma and digamma, less what src/likelihoods/special.h takes off."""
    rows = []
    for z in [1e-13, 1e-6, 0.01, 0.3, 0.99, 1, 1.5, 2, 3.7, 4, 7.9, 8, 15, 255, 1e4, 1e6, 1e8, 1e13]:
        z = f32(z)
        v = mp.mpf(z)
        stirling = mp.loggamma(v) - ((v - mp.mpf(1) / 2) * mp.log(v) - v + mp.log(2 * mp.pi) / 2)
        digamma = mp.log(v) - 1 / (2 * v) - mp.digamma(v)
        if abs(scipy.special.gammaln(z) - number(mp.loggamma(v))) > 1e-12 * (1 + abs(number(mp.loggamma(v)))):
            sys.exit(f"SciPy disagrees on lgamma({z})")
        if abs(scipy.special.digamma(z) - number(mp.digamma(v))) > 1e-12 * (1 + abs(number(mp.digamma(v)))):
            sys.exit(f"SciPy disagrees on digamma({z})")
        rows.append({"z": z, "stirling_error": number(stirling), "digamma_error": number(digamma)})
    return rows


def softmaxes():
    """categorical: one label; multinomial: counts of a row."""
    categorical, multinomial = [], []
    rows = [[0, 0, 0, 0], [0.3, -1.2, 2.5, 0.7], [1000, -1000, 999, 0], [-88, -87.5, -90, -100], [5]]
    for logits in rows:
        logits = [f32(v) for v in logits]
        exact = [mp.mpf(v) for v in logits]
        total = mp.fsum(mp.exp(v) for v in exact)
        log_p = [v - mp.log(total) for v in exact]
        for label in range(len(logits)):
            if abs(-scipy.special.log_softmax(logits)[label] - number(-log_p[label])) > 1e-12 * (1 + abs(number(log_p[label]))):
                sys.exit("SciPy disagrees on log_softmax")
            grad = [number(mp.exp(v) - (c == label)) for c, v in enumerate(log_p)]
            categorical.append({"logits": logits, "label": label, "nll": number(-log_p[label]), "grad": grad})
        for counts in ([0, 0, 0, 0], [1, 0, 0, 0], [2, 3, 5, 7], [0, 1000000, 0, 3], [400000, 100000, 250000, 250000]):
            counts = counts[: len(logits)]
            n = sum(counts)
            nll = -mp.loggamma(n + 1) + mp.fsum(mp.loggamma(c + 1) - c * v for c, v in zip(counts, log_p))
            if len(logits) > 1 and max(map(abs, logits)) < 500:
                p = np.exp(scipy.special.log_softmax(logits))
                theirs = -scipy.stats.multinomial.logpmf(counts, n, p / p.sum())
                if abs(theirs - number(nll)) > 1e-9 * (1 + n * 20):
                    sys.exit(f"SciPy disagrees on the multinomial: {theirs} {number(nll)} {counts} {logits}")
            grad = [number(n * mp.exp(v) - c) for c, v in zip(counts, log_p)]
            multinomial.append({"logits": logits, "counts": counts, "nll": number(nll), "grad": grad})
    return {"categorical": categorical, "multinomial": multinomial}


def make():
    golden = {"special": special(), **softmaxes()}
    for name in FORMULAS:
        golden[name] = [case(name, raw, x, offset) for raw, x, offset in grid(name)]
    return golden


def text(golden) -> str:
    """One case a line."""
    parts = []
    for name, rows in golden.items():
        lines = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in rows)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("file", nargs="?", type=pathlib.Path, default=FILE)
    options = parser.parse_args()
    made = text(make())
    if not options.check:
        options.file.write_text(made)
        return 0
    same = options.file.read_text() == made
    print("equal" if same else "not equal")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
