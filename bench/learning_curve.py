#!/usr/bin/env python3
"""Trains the default model from several seeds and holds the learning curve to its bounds.

    bench/learning_curve.py build/cpu/cuvae [--out bench/results/learning-curve.md]

The bounds on the test neg_elbo (nats) are absolute, for each seed and for their mean. The kl is
held to what PyTorch's own seeds show (bench/results/learning-curve-pytorch.json): it wanders by
half a nat from epoch to epoch and seed to seed, in PyTorch as here. Python's standard library only.
"""

import argparse
import datetime
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEG_ELBO_BOUNDS = {1: (125.5, 129.5), 5: (106.7, 108.9), 10: (103.9, 105.9)}
# Three standard errors of the difference for a mean, three and a half deviations for one seed.
MEAN_LIMIT, SEED_LIMIT = 3.0, 3.5
KL_EPOCHS = (5, 10)


def curve(binary, data, seed, epochs):
    """Test metrics by epoch, and what the run says of device and version."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [binary, "train", "--preset", "mnist-mlp", "--data", data, "--epochs",
                   str(epochs), "--seed", str(seed), "--out", run, "--quiet"]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"learning_curve: `cuvae train` ended with status {done.returncode}")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        environment = json.loads((run / "env.json").read_text())
    return {line["epoch"]: line for line in lines if line["split"] == "test"}, environment


def within(value, low, high):
    return low <= value <= high  # false for a NaN


def judge(curves, reference):
    """A row per epoch and seed, and whether all are within their limits."""
    rows, good = [], True
    for epoch, (low, high) in NEG_ELBO_BOUNDS.items():
        values = {str(seed): (c[epoch]["neg_elbo"], c[epoch]["kl"]) for seed, c in curves.items()}
        values["mean"] = tuple(statistics.fmean(column) for column in zip(*values.values()))
        kls = [point["kl"] for run in reference["runs"] for point in run["test"]
               if point["epoch"] == epoch]
        centre, deviation = statistics.fmean(kls), statistics.stdev(kls)
        for name, (neg_elbo, kl) in values.items():
            if name == "mean":
                spread = MEAN_LIMIT * deviation * math.sqrt(1 / len(curves) + 1 / len(kls))
            else:
                spread = SEED_LIMIT * deviation * math.sqrt(1 + 1 / len(kls))
            kl_bound = (centre - spread, centre + spread) if epoch in KL_EPOCHS else None
            passed = within(neg_elbo, low, high) and (kl_bound is None or within(kl, *kl_bound))
            good = good and passed
            bound = f"{kl_bound[0]:.2f}-{kl_bound[1]:.2f}" if kl_bound else "-"
            rows.append(f"| {epoch} | {name} | {neg_elbo:.2f} | {low}-{high} | {kl:.2f} | {bound} "
                        f"| {'yes' if passed else '**no**'} |")
    return rows, good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--data", default=ROOT / "data/mnist", type=pathlib.Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=pathlib.Path, help="writes the table there, too")
    arguments = parser.parse_args()

    reference = json.loads((ROOT / "bench/results/learning-curve-pytorch.json").read_text())
    curves, environment = {}, {}
    for seed in map(int, arguments.seeds.split(",")):
        curves[seed], environment = curve(arguments.binary, arguments.data, seed, 10)
        print(f"seed {seed}: neg_elbo {curves[seed][10]['neg_elbo']:.2f}", file=sys.stderr)
    rows, good = judge(curves, reference)
    device = environment["device"]
    text = "\n".join([
        "# Learning curve of the default model on MNIST", "",
        f"{datetime.date.today()}, cuvae {environment['cuvae']}, {device['model']}, "
        f"{device['details']}. Test images, nats per sample, one latent sample each. Command: "
        f"`bench/learning_curve.py build/cpu/cuvae --seeds {arguments.seeds}`.", "",
        "The limits of the kl are those that six seeds of PyTorch "
        "(`learning-curve-pytorch.json`) allow.", "",
        "| epoch | seed | neg_elbo | bounds | kl | limits | within |",
        "| --- | --- | --- | --- | --- | --- | --- |", *rows, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
