#!/usr/bin/env python3
"""Trains the rows of table 1 of "Importance weighted autoencoders" and prints our figures beside it.

    bench/iwae_table1.py build/cuda/cuvae                       # all five runs, 3,280 epochs each
    bench/iwae_table1.py build/cpu/cuvae --epochs 13 --rows iwae-5
    "$(scripts/peers-venv)" bench/iwae_table1.py build/cpu/cuvae --epochs 13 --rows iwae-5 --peer
    "$(scripts/peers-venv)" bench/iwae_table1.py build/cpu/cuvae --check-peer

The settings are those of the preset `iwae-table1` (one stochastic layer, as in the authors' code). A
figure is the negative log-likelihood of the test images, binarised anew, by importance weights of
5,000 samples. VAE and IWAE are one and the same with k = 1. A run that is there goes on from its last
checkpoint: the same command again takes up what was interrupted, and figures that are there are kept
(OUT/figures.json). With --epochs 13 the run ends after the first three of the eight stages of learning
rates; --peer trains the same model from the same initial weights in PyTorch, freely (its own noise and
binarisation), and judges it alike. --check-peer has PyTorch judge weights that cuvae trained a little,
on a few images without greys: the two figures must be the same but for the noise of the samples. Bands
hold for all 3,280 epochs only; the status is 1 where a figure is outside its band or more than 1 nat from
PyTorch's, or the check fails.
Python's standard library only, but for --peer and --check-peer.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WHOLE = 3280
PEER_LIMIT = 1.0  # nats between the two sides
# Row: objective, k, the paper's figure, the band of ours.
TABLE = {
    "vae-1": ("vae", 1, 86.76, (86.1, 87.0)),
    "vae-5": ("vae", 5, 86.47, None),
    "vae-50": ("vae", 50, 86.35, None),
    "iwae-5": ("iwae", 5, 85.54, (85.0, 85.7)),
    "iwae-50": ("iwae", 50, 84.78, (84.4, 85.0)),
}


def settings(row):
    """What the command line says beside the preset."""
    objective, samples, _, _ = TABLE[row]
    words = [f"objective.samples={samples}"]
    # The authors' VAE averages log p(x, z) - log q(z|x) over its samples: no closed form.
    if objective == "vae":
        words += ["objective.type=elbo", "objective.kl=mc"]
    return [part for word in words for part in ("--set", word)]


def cuvae(arguments, *words):
    """The JSON object that a command prints."""
    command = [str(word) for word in (arguments.binary, *words, "--json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"iwae_table1: `{' '.join(command)}` ended with status {done.returncode}: the same "
                 "command again goes on from the last checkpoint")
    return json.loads(done.stdout)


def run_flags(arguments):
    return ["--device", arguments.device, "--threads", arguments.threads]


def train(arguments, row):
    """The folder of the finished run."""
    run = arguments.out / row
    if (run / "checkpoints/last.safetensors").exists():
        start = ["--resume"]
    else:
        start = ["--preset", "iwae-table1", "--data", arguments.data, "--seed", arguments.seed,
                 "--overwrite", *settings(row)]
    # The authors judge the last weights. The one evaluation at the end chooses no others.
    cuvae(arguments, "train", "--out", run, "--epochs", arguments.epochs, "--eval-every",
          arguments.epochs, "--save-every", arguments.save_every, *start, *run_flags(arguments))
    return run


def peer_model(arguments, row, data, weights=None):
    """The row's model in PyTorch, with cuvae's initial weights or those of a file."""
    sys.path.insert(0, str(ROOT / "bench/peers"))
    import protocol
    import torch
    import torch_presets

    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        export = pathlib.Path(folder) / "export"
        cuvae(arguments, "compare", "--preset", "iwae-table1", "--data", data, "--seed",
              arguments.seed, "--steps", 1, "--device", "cpu", "--export", export, *settings(row))
        config = json.loads((export / "config.json").read_text())
        tensors = protocol.read_safetensors(str(weights or export / "initial.safetensors"))
    return torch_presets.Vae(config, tensors, torch.float32)


def peer(arguments, row):
    """The figure of the same model, trained in PyTorch."""
    model = peer_model(arguments, row, arguments.data)
    import idx
    import torch
    import torch_presets

    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch_presets.optimizer_of(model.config, model.parameters())
    train, test = (torch.tensor(idx.read_images(str(arguments.data), split))
                   for split in ("train", "test"))
    rows = train[:-400]

    def rate(epoch):
        print(f"PyTorch {row}: epoch {epoch + 1}/{arguments.epochs}", file=sys.stderr, flush=True)
        optimizer.lr = torch_presets.iwae_rate(model.config["lr"], epoch)

    torch_presets.train_freely(model, optimizer, rows, torch.zeros(len(rows), dtype=torch.long),
                               arguments.epochs, generator, shuffle=False, before=rate)
    values = torch_presets.log_likelihoods(model, test, generator, arguments.samples)
    return {"figure": -values.mean().item(), "error": values.std().item() / len(values) ** 0.5,
            "version": torch.__version__}


def check_peer(arguments):
    """Whether PyTorch finds the same -log p(x) as cuvae for the same weights and images."""
    samples, images = 500, 2000
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        data, run = work / "data", work / "run"
        data.mkdir()
        # Black and white alone, so that binarisation draws nothing.
        sys.path.insert(0, str(ROOT / "bench/peers"))
        import idx

        idx.write_part(str(arguments.data), str(data), 28, {"train": 6000, "test": images},
                       change=lambda grey: (grey > 127) * grey.dtype.type(255))
        cuvae(arguments, "train", "--preset", "iwae-table1", "--data", data, "--seed", arguments.seed,
              "--epochs", 2, "--eval-every", 2, "--out", run, *run_flags(arguments))
        ours = -cuvae(arguments, "eval", run, "--iw-samples", samples,
                      *run_flags(arguments))["log_likelihood"]
        model = peer_model(arguments, "iwae-5", data, run / "model.safetensors")
        import torch
        import torch_presets

        generator = torch.Generator().manual_seed(arguments.seed)
        test = torch.tensor(idx.read_images(str(data), "test"))
        both = [torch_presets.log_likelihoods(model, test, generator, samples) for _ in range(2)]
    theirs = -(both[0] + both[1]).mean().item() / 2
    # Of two figures of one sampling each; the difference of `ours` to the mean of two is below it.
    error = (both[0] - both[1]).std().item() / images ** 0.5
    good = abs(ours - theirs) <= 4 * error  # false for a NaN
    print(f"-log p(x) of {images} images, {samples} samples, the same weights: cuvae {ours:.3f}, "
          f"PyTorch {theirs:.3f}, difference {ours - theirs:+.3f}, limit {4 * error:.3f}: "
          f"{'the same' if good else 'NOT the same'}")
    return 0 if good else 1


class Figures:
    """What is known of each row: OUT/figures.json."""

    def __init__(self, arguments):
        self.path = arguments.out / "figures.json"
        self.key = [arguments.epochs, arguments.seed, arguments.samples]
        self.all = json.loads(self.path.read_text()) if self.path.exists() else []

    def get(self, row, side, make):
        for entry in self.all:
            if [entry["row"], entry["side"], entry["key"]] == [row, side, self.key]:
                return entry
        start = time.monotonic()
        entry = {"row": row, "side": side, "key": self.key, **make(),
                 "seconds": round(time.monotonic() - start)}
        self.all.append(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".json.partial")
        partial.write_text(json.dumps(self.all, indent=1) + "\n")
        os.replace(partial, self.path)
        return entry


def ours(arguments, row):
    """-log p(x) of the test images, its standard error over them, and where that was made."""
    run = train(arguments, row)
    judged = cuvae(arguments, "eval", run, "--iw-samples", arguments.samples, *run_flags(arguments))
    environment = json.loads((run / "env.json").read_text())
    device = environment["device"]
    return {"figure": -judged["log_likelihood"], "error": judged["log_likelihood_error"],
            "version": f"{environment['cuvae']} ({environment['commit']})",
            "machine": f"{device['model']}, {device['details']}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--rows", default=",".join(TABLE), help="of " + ", ".join(TABLE))
    parser.add_argument("--epochs", type=int, default=WHOLE)
    parser.add_argument("--samples", type=int, default=5000, help="of the log-likelihood")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/mnist")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/iwae-table1"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 = all cores")
    parser.add_argument("--save-every", type=int, default=10, help="epochs between checkpoints")
    parser.add_argument("--peer", action="store_true", help="PyTorch at the same point, on the CPU")
    parser.add_argument("--check-peer", action="store_true",
                        help="only: does PyTorch judge the same weights alike?")
    parser.add_argument("--table", type=pathlib.Path, help="writes the table there, too, and its figures beside it as JSON")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    for row in rows:
        if row not in TABLE:
            parser.error(f"no row {row!r}: choose of {', '.join(TABLE)}")
    if min(arguments.epochs, arguments.samples, arguments.save_every) < 1:
        parser.error("--epochs, --samples and --save-every must be at least 1")

    if arguments.check_peer:
        return check_peer(arguments)

    lines, good, whole = [], True, arguments.epochs == WHOLE
    figures = Figures(arguments)
    last = "PyTorch | difference" if arguments.peer else "seconds"
    lines += [f"| row | -log p(x) | std. error | paper | band | {last} |",
              "|---|---|---|---|---|---|" + ("---|" if arguments.peer else "")]
    used = []
    for row in rows:
        _, _, paper, band = TABLE[row]
        entry = figures.get(row, "cuvae", lambda: ours(arguments, row))
        used.append(entry)
        figure = entry["figure"]
        text = "-"
        if band is not None:
            text = f"{band[0]}-{band[1]}"
            if whole:
                inside = band[0] <= figure <= band[1]
                good = good and inside
                text += " (inside)" if inside else " (**outside**)"
        cell = entry["seconds"]
        if arguments.peer:
            used.append(figures.get(row, "pytorch", lambda: peer(arguments, row)))
            theirs = used[-1]["figure"]
            close = abs(figure - theirs) <= PEER_LIMIT  # false for a NaN
            good = good and close
            cell = f"{theirs:.2f} | {figure - theirs:+.2f}{'' if close else ' (**beyond 1 nat**)'}"
        lines.append(f"| {row} | {figure:.2f} | {entry['error']:.2f} | {paper} | {text} | {cell} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", f"{arguments.epochs} of {WHOLE} epochs, seed {arguments.seed}, "
              f"{arguments.samples} samples, all test images; the paper's figures and the bands are of "
              f"{WHOLE} epochs and 5,000 samples, and hold for nothing else.",
              *([f"Not run: {', '.join(row for row in TABLE if row not in rows)}."]
                if len(set(rows)) < len(TABLE) else []),
              "784-200-200-50-200-200-784, tanh, log-sigma heads, Glorot weights, output bias = logit "
              "of the training mean; 59,600 images in order, binarised at every read, also in the "
              "test; gradient summed over batches of 20; Adam with betas .99 and .999, eps 1e-4, "
              "v0 = 1; 3^i epochs at 10^(-3 - i/7).",
              *([f"PyTorch {used[-1]['version']}: the same model from the same initial weights, its own "
                 "noise and binarisation."] if arguments.peer else []),
              f"{used[0]['machine']}; cuvae {used[0]['version']}."]
    table = "\n".join(lines) + "\n"
    print(table, end="")
    if arguments.table:
        arguments.table.write_text("# Rows of the IWAE paper's table 1\n\n" + table)
        arguments.table.with_suffix(".json").write_text(
            json.dumps({"schema": 1, "made_by": "bench/iwae_table1.py", "epochs": arguments.epochs,
                        "seed": arguments.seed, "samples": arguments.samples,
                        "figures": [{name: value for name, value in entry.items()
                                     if name not in ("key", "seconds")} for entry in used]},
                       indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
