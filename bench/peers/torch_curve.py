"""Learning curve of the default model in PyTorch, free running: the reference for cuvae's bounds.

Prints one JSON object: test neg_elbo, reconstruction and kl (nats per sample, one draw of z for
each image, beta = 1) after epochs 1, 2, 5, 10, 20 and the last, for each seed, and their mean.
Training drops the last partial batch, evaluation does not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

EPOCHS = (1, 2, 5, 10, 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder in MNIST's layout, e.g. data/mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error("--seeds must be integers, as in 0,1,2")
    if min(args.epochs, args.batch_size, args.hidden, args.latent, args.threads) < 1:
        parser.error("--epochs, --batch-size, --hidden, --latent, --threads must be at least 1")

    import idx
    import torch
    import torch_vae
    torch.set_num_threads(args.threads)
    try:
        train, test = (torch.from_numpy(idx.read_images(args.data, split).copy())
                       for split in ("train", "test"))
    except (OSError, ValueError) as error:
        print(f"torch_curve: error: {error}", file=sys.stderr)
        return 3
    if len(train) < args.batch_size:
        parser.error(f"--batch-size {args.batch_size} exceeds the {len(train)} images")

    def evaluate(model) -> dict:
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for rows in test.split(1000):
                x = rows.float() / 255  # [B, input]
                total += torch.stack(model(x, torch.randn(len(x), args.latent))).double() * len(x)
        reconstruction, kl = (total / len(test)).tolist()
        return {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    runs = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = torch_vae.Vae(train.shape[1], args.hidden, args.latent)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, betas=(0.9, 0.999), eps=1e-8)
        points, start = [], time.perf_counter()
        for epoch in range(1, args.epochs + 1):
            for index in torch.randperm(len(train)).split(args.batch_size):
                if len(index) < args.batch_size:
                    break
                x = train[index].float() / 255  # [B, input]
                optimizer.zero_grad(set_to_none=True)
                reconstruction, kl = model(x, torch.randn(len(x), args.latent))
                (reconstruction + args.beta * kl).backward()
                optimizer.step()
            if epoch in EPOCHS or epoch == args.epochs:
                points.append({"epoch": epoch, **evaluate(model)})
                print(f"seed {seed} epoch {epoch}: neg_elbo {points[-1]['neg_elbo']:.2f} "
                      f"kl {points[-1]['kl']:.2f} ({time.perf_counter() - start:.0f} s)",
                      file=sys.stderr, flush=True)
        runs.append({"seed": seed, "test": points})
    mean = [{"epoch": points[0]["epoch"],
             **{name: sum(point[name] for point in points) / len(points)
                for name in ("neg_elbo", "reconstruction", "kl")}}
            for points in zip(*(run["test"] for run in runs))]
    print(json.dumps({"peer": "pytorch", "version": torch.__version__,
                      "batch_size": args.batch_size, "lr": args.lr, "beta": args.beta,
                      "runs": runs, "mean": mean}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
