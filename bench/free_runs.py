#!/usr/bin/env python3
"""Trains presets with cuvae and with PyTorch, freely, and compares the test figures.

    "$(scripts/peers-venv)" bench/free_runs.py build/cpu/cuvae
    "$(scripts/peers-venv)" bench/free_runs.py build/cpu/cuvae --presets keras-dense,cvae --data mnist

Both sides begin with cuvae's initial weights of a seed and go on by themselves: own order, own noise,
own binarisation, own rows for validation. The figure is the mean test neg_elbo of the seeds (one
latent sample; of `iwae-table1` -L_5, k = 5) after the last epoch; the two means may differ by 1 nat, of
models with 2 latents by 2 (--epochs 5, for which these limits are). The status is 1 where they do.
`m2-100` is a short run: 3 epochs, one draw of labels, the same rows with a label on both sides; the
figure is -U, beside it the classifier's accuracy.
`conv-64` takes the first 6,000 training and 2,000 test images at 64 x 64 (each pixel four times, in a
black frame of 4): 235 steps, after which seeds differ by more than the limit. It is held to three
standard errors of the difference where these are more. Fashion-MNIST lies where the package dataset-fashion-mnist puts it, or in
$CUVAE_FASHION_MNIST. Every finished run is kept in OUT.json and not repeated; OUT.md is the table.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench/peers"))

import idx  # noqa: E402
import protocol  # noqa: E402

# Largest difference of the means (nats), and the size of the images; in the order of their cost.
PRESETS = {"keras-dense": (2, 28), "cvae": (2, 28), "mnist-mlp": (1, 28), "iwae-table1": (1, 28),
           "keras-conv": (2, 28), "m2-100": (1, 28), "conv-64": (1, 64)}
SHORT = {"m2-100": 3}  # epochs at most, of one seed
NOISY = {"conv-64"}
DATA = {"mnist": str(ROOT / "data/mnist"),
        "fashion-mnist": os.environ.get("CUVAE_FASHION_MNIST") or "/usr/share/datasets/fashion-mnist"}
PART = {"train": 6000, "test": 2000}  # of images at 64 x 64
SIDES = ("cuvae", "pytorch")


def cuvae(binary, *words):
    """The JSON object that a command prints."""
    command = [str(word) for word in (binary, *words, "--json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"free_runs: `{' '.join(command)}` ended with status {done.returncode}: "
                 f"{done.stderr.strip()}")
    return json.loads(done.stdout)


def run_cuvae(arguments, preset, folder, seed, epochs, work):
    run = work / "run"
    cuvae(arguments.binary, "train", "--preset", preset, "--data", folder, "--seed", seed,
          "--epochs", epochs, "--eval-every", epochs, "--save-every", epochs, "--device", "cpu",
          "--threads", arguments.threads, "--out", run, "--overwrite", "--quiet")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    point = next(line for line in lines if line["split"] == "test" and line["epoch"] == epochs)
    result = {name: point[name] for name in ("neg_elbo", "reconstruction", "kl", "accuracy")
              if name in point}
    samples = settings(preset).get("objective", {}).get("samples", 1)
    if samples > 1:
        judged = cuvae(arguments.binary, "eval", run, "--iw-samples", samples, "--device", "cpu",
                       "--threads", arguments.threads)
        result["bound"] = -judged["log_likelihood"]
    environment = json.loads((run / "env.json").read_text())
    device = environment["device"]
    return {**result, "version": f"{environment['cuvae']} ({environment['commit']})",
            "machine": f"{device['model']}, {device['details']}"}


def settings(preset):
    return tomllib.loads((ROOT / f"examples/{preset}.toml").read_text())


def run_pytorch(arguments, preset, folder, seed, epochs, work):
    import numpy as np
    import torch
    import torch_presets

    torch.set_num_threads(arguments.threads)
    export = work / "export"
    chosen = settings(preset)
    told = chosen["data"].get("labelled", 0)
    # So many steps draw every row that keeps its label.
    cuvae(arguments.binary, "compare", "--preset", preset, "--data", folder, "--seed", seed,
          "--steps", 20 if told else 1, "--device", "cpu", "--threads", arguments.threads, "--export", export)
    config = json.loads((export / "config.json").read_text())
    model = torch_presets.model_of(
        config, protocol.read_safetensors(str(export / "initial.safetensors")))
    optimizer = torch_presets.optimizer_of(config, model.parameters())
    train, test = ([torch.tensor(idx.read_images(str(folder), split)),
                    torch.tensor(idx.read_labels(str(folder), split)).long()]
                   for split in ("train", "test"))
    generator = torch.Generator().manual_seed(seed)
    held = chosen["data"].get("validation", 0)
    rows = len(train[0])
    kept = (torch.randperm(rows, generator=generator)[round(held * rows):] if held < 1
            else torch.arange(rows - held))

    def rate(epoch):
        if chosen["train"].get("schedule", {}).get("type") == "iwae":
            optimizer.lr = torch_presets.iwae_rate(config["lr"], epoch)

    labelled, evaluate = None, torch_presets.evaluate
    if told:
        known = np.unique(np.load(export / "labelled_batches.npy"))
        if len(known) != told:
            sys.exit(f"free_runs: {len(known)} of {told} rows with a label in the export of {preset}")
        labelled = (*(t[known] for t in train), chosen["objective"]["labelled_batch"])
        evaluate = torch_presets.evaluate_m2
    torch_presets.train_freely(model, optimizer, *(t[kept] for t in train), epochs, generator,
                               chosen["train"].get("shuffle", True), rate, labelled)
    return {**evaluate(model, *test, generator), "version": torch.__version__,
            "machine": f"{processor()}, {arguments.threads} thread"
                       + ("s" if arguments.threads > 1 else "")}


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


class Kept:
    """The runs that are there, in a file."""

    def __init__(self, path):
        self.path = path
        self.runs = json.loads(path.read_text())["runs"] if path.exists() else []

    def find(self, **key):
        return next((run for run in self.runs if all(run[k] == v for k, v in key.items())), None)

    def add(self, run):
        """In the place of what is there of the same key."""
        of = ("preset", "data", "side", "seed", "epochs")
        self.runs = [r for r in self.runs if any(r[k] != run[k] for k in of)] + [run]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".json.partial")
        lines = ",\n".join("  " + json.dumps(run) for run in self.runs)
        partial.write_text(f'{{"schema": 1, "made_by": "bench/free_runs.py", "runs": [\n{lines}\n]}}\n')
        os.replace(partial, self.path)


def figure(run):
    return run.get("bound", run["neg_elbo"])


def planned(preset, seeds, epochs):
    """Seeds and epochs of a preset."""
    return (seeds[:1], min(epochs, SHORT[preset])) if preset in SHORT else (seeds, epochs)


def table(runs, presets, data, all_seeds, all_epochs):
    """Lines of the comparison, and whether all that is there is within its limits."""
    lines = ["| preset | data | epochs | seeds | figure | cuvae | PyTorch | difference | its std. error "
             "| limit | within |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    good, missing, notes = True, [], []
    for preset in presets:
        seeds, epochs = planned(preset, all_seeds, all_epochs)
        for name in data:
            sides = [[r for r in runs if r["side"] == side and r["preset"] == preset
                      and r["data"] == name and r["epochs"] == epochs and r["seed"] in seeds]
                     for side in SIDES]
            if any(len(side) < len(seeds) for side in sides):
                there = [", ".join(f"{figure(run):.2f}" for run in side) or "none" for side in sides]
                missing.append(f"`{preset}` on {name} (of {len(seeds)} runs each: cuvae {there[0]}; "
                               f"PyTorch {there[1]})")
                continue
            values = [[figure(run) for run in side] for side in sides]
            means = [statistics.fmean(side) for side in values]
            spreads = [statistics.stdev(side) if len(side) > 1 and math.isfinite(mean) else math.nan
                       for side, mean in zip(values, means)]
            difference = means[0] - means[1]
            error = math.sqrt(sum(spread ** 2 for spread in spreads) / len(seeds))
            limit = PRESETS[preset][0]
            if preset in NOISY and 3 * error > limit:
                limit = round(3 * error, 2)
            within = abs(difference) <= limit  # false for a NaN
            good = good and within
            one = len(seeds) == 1
            cells = [f"{mean:.2f}" + ("" if one else f" ({spread:.2f})")
                     for mean, spread in zip(means, spreads)]
            kind = "-L_5" if "bound" in sides[0][0] else "neg_elbo"
            lines.append(f"| {preset} | {name} | {epochs} | {len(seeds)} | {kind} | "
                         f"{' | '.join(cells)} | {difference:+.2f} | {'-' if one else f'{error:.2f}'} "
                         f"| {limit} | {'yes' if within else '**no**'} |")
            if "accuracy" in sides[0][0]:
                told = [100 * statistics.fmean(run["accuracy"] for run in side) for side in sides]
                notes.append(f"Labels of the test images guessed right by `{preset}` on {name}: "
                             f"{told[0]:.2f} % by cuvae, {told[1]:.2f} % by PyTorch.")
    notes += [f"Not complete: {line}." for line in missing]
    return lines, notes, good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/free-runs"),
                        help="stem of the .json and .md (%(default)s)")
    parser.add_argument("--table", action="store_true", help="run nothing, judge what is kept")
    parser.add_argument("--fresh", action="store_true", help="repeat what is kept of those named")
    arguments = parser.parse_args()
    presets, data = arguments.presets.split(","), arguments.data.split(",")
    for kind, words, known in (("preset", presets, PRESETS), ("data", data, DATA)):
        for word in words:
            if word not in known:
                parser.error(f"no {kind} {word!r}: choose of {', '.join(known)}")
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        parser.error("--seeds must be integers, as in 0,1,2")
    if min(arguments.epochs, arguments.threads) < 1:
        parser.error("--epochs and --threads must be at least 1")
    for name in data:
        if not pathlib.Path(DATA[name]).is_dir():
            parser.error(f"no {name} in {DATA[name]}: install dataset-fashion-mnist, or leave it out "
                         "by --data mnist")

    if arguments.table and arguments.fresh:
        parser.error("--table runs nothing, --fresh runs anew: leave one out")
    kept = Kept(arguments.out.with_suffix(".json"))
    run_of = {"cuvae": run_cuvae, "pytorch": run_pytorch}
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for preset, name, seed, side in (
                (p, d, s, e) for p in presets for d in data
                for s in planned(p, seeds, arguments.epochs)[0] for e in SIDES):
            epochs = planned(preset, seeds, arguments.epochs)[1]
            key = {"preset": preset, "data": name, "side": side, "seed": seed, "epochs": epochs}
            if arguments.table or (kept.find(**key) and not arguments.fresh):
                continue
            folder, size = pathlib.Path(DATA[name]), PRESETS[preset][1]
            if size != 28:
                part = work / f"{name}-{size}"
                if not part.exists():
                    part.mkdir()
                    idx.write_part(str(folder), str(part), size, PART)
                folder = part
            kept.add({**key, **run_of[side](arguments, preset, folder, seed, epochs, work)})
            print(f"{preset} {name} seed {seed} {side}: {figure(kept.runs[-1]):.2f}",
                  file=sys.stderr, flush=True)

    lines, notes, good = table(kept.runs, presets, data, seeds, arguments.epochs)
    machines = sorted({f"{run['side']} {run['version']}: {run['machine']}" for run in kept.runs})
    lines = ["# Free runs beside PyTorch", "",
             f"Test figures in nats, mean of seeds {arguments.seeds} (standard deviation of a seed). "
             "Both sides begin with the same weights and go on with their own order, noise and "
             "binarisation. `conv-64`: the first 6,000 images at 64 x 64, 2,000 for the test; after "
             "235 steps its seeds differ by more than 1 nat, and its limit, three standard errors of the "
             "difference, says little.", "",
             *lines, "", *(f"- {note}" for note in notes),
             *(f"- {machine}" for machine in machines)]
    text = "\n".join(lines) + "\n"
    arguments.out.with_suffix(".md").write_text(text)
    print(text, end="")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
