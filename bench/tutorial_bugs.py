#!/usr/bin/env python3
"""Trains the mistakes of VAE tutorials, and writes the number that each of them costs.

    bench/tutorial_bugs.py build/cpu/cuvae [--out bench/results/tutorial-bugs.md] [--epochs 2]

The default model on MNIST, changed by the keys that the table shows. What no configuration of cuvae
can say (a KL term of the wrong sign, say) is computed from a run's own figures and files, or told as
arithmetic; the table says which. Python's standard library only.
"""

import argparse
import array
import ast
import datetime
import gzip
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
D, LATENT = 784, 32

SHRINKING = """schema = 1
[model]
latent.size = 2
encoder.layers = [
  { type = "conv2d", out = 8, kernel = 3, stride = 2, padding = 1 },
  { type = "conv2d", out = 16, kernel = 3, stride = 2, padding = 1 },
  { type = "conv2d", out = 32, kernel = 3, stride = 2, padding = 1 },
]
decoder.layers = [
  { type = "linear", out = 512 },
  { type = "reshape", shape = [32, 4, 4] },
  { type = "conv_transpose2d", out = 16, kernel = 4, stride = 2, padding = 1 },
  { type = "conv_transpose2d", out = 8, kernel = 4, stride = 2, padding = 1 },
]
decoder.out = { type = "conv_transpose2d", kernel = 4, stride = 2, padding = 1 }
"""


def npy(path):
    """Shape and values of a .npy file of floats."""
    content = path.read_bytes()
    length = struct.unpack_from("<H", content, 8)[0]
    header = ast.literal_eval(content[10:10 + length].decode())
    values = array.array({"<f4": "f", "<f8": "d"}[header["descr"]])
    values.frombytes(content[10 + length:])
    return header["shape"], values


def test_pixels(data):
    path = pathlib.Path(data) / "t10k-images-idx3-ubyte"
    content = path.read_bytes() if path.exists() else gzip.decompress(
        path.with_name(path.name + ".gz").read_bytes())
    return content[16:]


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def sigmoid32(logit):
    """As float arithmetic has it: every operation rounded."""
    return single(1 / single(1 + single(math.exp(-logit))))


class Runs:
    """Runs of one binary on one data set in one folder."""

    def __init__(self, binary, data, folder, epochs):
        self.binary, self.data, self.folder, self.epochs = binary, data, folder, epochs

    def cuvae(self, *words, status=0):
        command = [str(word) for word in (self.binary, *words)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != status:
            sys.exit(f"tutorial_bugs: {' '.join(command)} ended with status {done.returncode}\n"
                     + done.stderr)
        return done

    def path(self, name):
        return self.folder / name

    def train(self, name, *keys, epochs=None):
        words = []
        for key in keys:
            words += ["--set", key]
        self.cuvae("train", "--preset", "mnist-mlp", "--data", self.data, "--epochs",
                   epochs or self.epochs, "--out", self.path(name), "--quiet", *words)

    def metrics(self, name, split):
        lines = (self.path(name) / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["split"] == split]

    def last(self, name):
        return self.metrics(name, "test")[-1]

    def evaluate(self, name, *flags):
        return json.loads(self.cuvae("eval", self.path(name), "--json", *flags).stdout)


def reductions(runs):
    right = runs.last("base")
    rows = []
    for name, keys, what, beta in [
            ("kl-mean", ["objective.latent_reduction=mean"],
             "KL averaged over latents, pixels summed", f"1/d = {1 / LATENT:.3f}"),
            ("pixel-mean", ["objective.pixel_reduction=mean"],
             "pixels averaged, KL summed", f"D = {D}"),
            ("both-mean", ["objective.pixel_reduction=mean", "objective.latent_reduction=mean"],
             "both averaged", f"D/d = {D / LATENT:g}"),
            ("mse-mean", ["model.likelihood.type=gaussian", "objective.pixel_reduction=mse"],
             "mean squared error + KL", f"D/2 = {D // 2}")]:
        runs.train(name, *keys)
        test = runs.last(name)
        active = runs.evaluate(name)["active_units"]
        if name == "mse-mean":
            figures = f"kl {test['kl']:.4f}"
        else:
            figures = (f"neg_elbo {test['neg_elbo']:.1f} ({test['neg_elbo'] - right['neg_elbo']:+.1f}), "
                       f"kl {test['kl']:.4g}")
        rows.append(("a", what, " ".join(f"`--set {key}`" for key in keys),
                     f"effective beta {beta}: {figures}, {active} of {LATENT} latents active"))
    return rows


def wrong_sign(runs):
    """Whose loss has no lower bound: a posterior that shrinks pays for itself."""
    test = runs.last("base")
    at_bound = 0.5 * (math.exp(-20) + 20 - 1)
    return ("b", "KL term of the wrong sign", "from the default run's figures; a formula",
            f"the trained model would show {test['reconstruction'] - test['kl']:.1f} for "
            f"{test['neg_elbo']:.1f}; each latent at logvar = -20 takes {at_bound:.1f} nats more off, "
            f"{LATENT * at_bound:.0f} in all, and without bound beyond")


def no_sampling(runs):
    runs.train("autoencoder", "objective.type=autoencoder")
    runs.cuvae("encode", runs.path("autoencoder"), "--split", "test", "--out", runs.path("z.npy"))
    _, z = npy(runs.path("z.npy"))
    square = sum(value * value for value in z) / len(z)
    test = runs.last("autoencoder")
    refused = runs.cuvae("sample", runs.path("autoencoder"), "--out", runs.path("no.png"), status=2)
    return ("c", "z = mean, nothing drawn", "`--set objective.type=autoencoder`",
            f"reconstruction {test['reconstruction']:.1f} instead of "
            f"{runs.last('base')['reconstruction']:.1f}, and codes with a mean square of "
            f"{square:.1f} where N(0, I) has 1: draws from it meet a decoder that has never seen "
            f"them. `cuvae sample`: {refused.stderr.strip().splitlines()[-1].split('error: ')[-1]}")


def log_of_zero():
    rounded = next(k / 100 for k in range(3000) if single(1 / (1 + math.exp(-k / 100))) == 1.0)
    computed = next(k / 100 for k in range(3000) if sigmoid32(k / 100) == 1.0)
    return ("d", "log of a rounded probability", "arithmetic, in float",
            f"sigmoid rounds to 1 from the logit {rounded:.2f} on (computed in float: from "
            f"{computed:.2f}), so that log(1 - p) = -inf; a black "
            f"pixel at logit 1000 costs 1000 nats, but {-math.log(1e-7):.1f} by Keras's clip at 1e-7 "
            f"and 100 by PyTorch's clamp")


def grey(runs):
    pixels = test_pixels(runs.data)
    counts = [0] * 256
    for pixel in pixels:
        counts[pixel] += 1
    entropy = 0.0
    for value, count in enumerate(counts):
        if 0 < value < 255:
            p = value / 255
            entropy -= count * (p * math.log(p) + (1 - p) * math.log(1 - p))
    floor = entropy / (len(pixels) / D)
    runs.train("dynamic", "data.binarise=dynamic")
    return ("e", "grey pixels under a Bernoulli", "the test images' own entropy; "
            "`--set data.binarise=dynamic`",
            f"no model can be below {floor:.1f} nats per image, which is no code length of anything; "
            f"neg_elbo {runs.last('base')['neg_elbo']:.1f} of grey pixels, "
            f"{runs.last('dynamic')['neg_elbo']:.1f} of binarised ones, which is a likelihood")


def at_mean(runs):
    base = runs.path("base")
    runs.cuvae("encode", base, "--split", "test", "--out", runs.path("mean.npy"))
    runs.cuvae("decode", base, "--latents", runs.path("mean.npy"), "--out", runs.path("x.npy"))
    shape, p = npy(runs.path("x.npy"))
    pixels = test_pixels(runs.data)
    tiny = 2.0 ** -25  # where float has rounded
    nll = 0.0
    for value, q in zip(pixels, p):
        x = value / 255
        if value:
            nll -= x * math.log(max(q, 1e-38))
        if value < 255:
            nll -= (1 - x) * math.log(max(1 - q, tiny))
    nll /= shape[0]
    test = runs.last("base")
    return ("f", "evaluation at z = mean", "`cuvae encode`, `cuvae decode`, and the table's script",
            f"reconstruction {nll:.1f} instead of {test['reconstruction']:.1f}: "
            f"{nll + test['kl']:.1f} would be shown for {test['neg_elbo']:.1f}, and bounds nothing")


def annealed(runs):
    epochs = 8
    steps = 468 * 20
    keys = ["objective.warmup.type=linear", f"objective.warmup.steps={steps}",
            "data.validation=0.1"]
    runs.train("warmup", *keys, epochs=epochs)
    lines = runs.metrics("warmup", "validation")
    loss = [line["reconstruction"] + line["beta"] * line["kl"] for line in lines]
    bound = [line["neg_elbo"] for line in lines]
    wrong, best = loss.index(min(loss)), bound.index(min(bound))
    return ("g", "the best epoch by the annealed loss",
            " ".join(f"`--set {key}`" for key in keys) + f" `--epochs {epochs}`",
            f"the annealed loss chooses epoch {wrong + 1} with neg_elbo {bound[wrong]:.1f}, "
            f"the bound at beta = 1 epoch {best + 1} with {bound[best]:.1f}")


def explosion():
    kl = 0.5 * (math.exp(20) - 20 - 1)
    return ("h", "logvar without a bound", "arithmetic, in float",
            f"exp(logvar) is inf from {math.log(3.4028234663852886e38):.1f} on and the next weights "
            f"are NaN; bounded to [-20, 20] the worst KL of a latent is {kl:.3g} nats, finite, "
            f"with its gradient")


def unit_sigma(runs):
    gaussian = "model.likelihood.type=gaussian"
    runs.train("sigma-1", gaussian)
    runs.train("sigma-global", gaussian, "model.likelihood.sigma=global")
    figures = []
    for name in ("sigma-1", "sigma-global"):
        told = runs.evaluate(name)
        figures.append((runs.last(name)["kl"], told["active_units"], runs.last(name)["neg_elbo"]))
    return ("i", "MSE on [0, 1] pixels, which is sigma = 1",
            f"`--set {gaussian}`, and `--set model.likelihood.sigma=global` beside",
            f"kl {figures[0][0]:.1f} with {figures[0][1]} latents active; with sigma learned "
            f"{figures[1][0]:.1f} and {figures[1][1]}, and a density {figures[0][2] - figures[1][2]:.0f} "
            f"nats better per image")


def outside_the_log(runs):
    bounds = {k: runs.evaluate("base", "--iw-samples", k)["log_likelihood"] for k in (1, 5, 50)}
    return ("j", "IWAE weights averaged outside the logarithm",
            "`cuvae eval --iw-samples K` of the default run",
            f"the average of log weights is the ELBO for every K, {-bounds[1]:.1f}; the logarithm of "
            f"the average is {-bounds[5]:.1f} with K = 5, {-bounds[50]:.1f} with 50")


def shapes(runs):
    config = runs.path("shrinking.toml")
    config.write_text(SHRINKING)
    refused = runs.cuvae("info", "--config", config, "--data", runs.data, status=2)
    line = refused.stderr.strip().splitlines()[-1].split("error: ")[-1]
    return ("k", "28 -> 14 -> 7 -> 4 by stride 2, and back 4 -> 8 -> 16 -> 32",
            "`cuvae info --config` of three such layers each way", f"status 2 before anything runs: "
            f"\"{line}\"")


# Row of the table: what goes wrong.
WRONG = {
    "a": "the two terms no longer weigh what the bound says: a KL that is too light, or a posterior "
         "that collapses",
    "b": "the loss rewards a posterior that leaves the prior, and has no lower bound",
    "c": "an autoencoder that reports a KL: nothing ties codes to what samples are drawn from",
    "d": "inf or NaN, or a clip that hides it and has no gradient",
    "e": "a cross-entropy, no density: its floor is the pixels' own entropy; not to be compared with "
         "binarised figures",
    "f": "no ELBO, and better than it",
    "g": "the loss is least while beta is small: early stopping and plateaus choose that epoch",
    "h": "one row far out overflows, and the KL term has to read the bound value too",
    "i": "far too wide for pixels: blurred, little in the latents; and the reason for hand-tuned betas",
    "j": "another bound, whatever K is; and weights that are differentiated are another gradient",
    "k": "odd sizes do not come back, or crash in the middle of an epoch; flattened orders that "
         "differ do not even crash",
}
# The tests that guard it.
GUARDS = {
    "a": ["Pitfall1.ReductionsHaveTheirEffectiveBeta", "Presets.Dense100HoldsItsBand"],
    "b": ["Pitfall5.TheKlHasItsSignAndItsDerivatives"],
    "c": ["Pitfall13.TrainingDrawsItsLatents", "Pitfall13.AnAutoencoderIsNoVae"],
    "d": ["Pitfall3.ExtremeLogitsCostWhatTheySay"],
    "e": ["Pitfall4.GreyPixelsHaveAFloor"],
    "f": ["EvaluationPitfall13.EvaluationDrawsItsLatents"],
    "g": ["Selection.IsAtBetaOneWhateverTheWarmUp"],
    "h": ["Pitfall6.LogVariancesAreBoundedEverywhere"],
    "i": ["Pitfall8.ALearnedSigmaIsTheRootOfTheError"],
    "j": ["Objective.IwaeIsTheLogOfTheMeanWeight", "Objective.GradientsAreCentralDifferences"],
    "k": ["Layers.DecoderMustMakeWhatTheDataAre", "Layers.WhatDoesNotFitIsSaidInOneLine"],
}


def table(rows):
    lines = ["| mistake | what goes wrong | measured by | the number | guarded by |",
             "| --- | --- | --- | --- | --- |"]
    seen = set()
    for letter, what, how, figures in rows:
        again = letter in seen
        seen.add(letter)
        tests = ", ".join(f"`{name}`" for name in GUARDS[letter])
        lines.append(f"| {what} | {'as above' if again else WRONG[letter]} | {how} | {figures} | "
                     f"{'as above' if again else tests} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cuvae")
    parser.add_argument("--data", default=str(ROOT / "data/mnist"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", default=str(ROOT / "bench/results/tutorial-bugs.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(options.cuvae, options.data, pathlib.Path(folder), options.epochs)
        runs.train("base")
        base = runs.last("base")
        environment = json.loads((runs.path("base") / "env.json").read_text())
        rows = [*reductions(runs), wrong_sign(runs), no_sampling(runs), log_of_zero(), grey(runs),
                at_mean(runs), annealed(runs), explosion(), unit_sigma(runs),
                outside_the_log(runs), shapes(runs)]
    device = f"{environment['device']['model']}, {environment['device']['details']}"
    text = f"""# What the mistakes of tutorials cost

{datetime.date.today()}, {device}. The default model on MNIST, {options.epochs} epochs unless a row says otherwise,
seed 0; test images, nats per image, one latent sample each. Without a mistake: neg_elbo {base['neg_elbo']:.1f}, kl {base['kl']:.1f}.
A row with keys is `cuvae train --data data/mnist --epochs {options.epochs}` with these. Command: `bench/tutorial_bugs.py build/cpu/cuvae`.

{table(rows)}
"""
    pathlib.Path(options.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
