"""One training step of the default model in PyTorch, timed on request: the peer of `cuvae bench`.

At the start one JSON line describes the peer. Then each line of stdin asks for one repeat and gets
one JSON line, so that the caller can interleave repeats of several programs in one run:

    {"steps": 200, "batch": 128}                 -> {"seconds": ..., "steps": 200, "loss": ...}
    {"steps": 200, "batch": 128, "work": "gemm"} -> {"seconds": ..., "steps": 200, "gflops": ...}

"work" is "step" (default) or "gemm", the step's 11 matrix products alone. A batch size is warmed up
(and compiled) at its first use, outside the timing. A request that cannot be served gets
{"error": ...}. The peer ends with status 0 at the end of stdin.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time

import protocol

SEED = 20
MODES = ("eager", "compile", "reduce-overhead", "max-autotune", "graph", "compiled-graph")
GRAPH_STEPS = 20  # whole steps that one replay runs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    protocol.add_flags(parser, "tf32: cuda only; bf16: autocast")
    parser.add_argument("--mode", choices=MODES, default="eager",
                        help="compile: torch.compile of gather, forward, loss and their backward; "
                        "cuda only: reduce-overhead: the same with its CUDA graphs; max-autotune: "
                        "and with its choice of kernels; graph: eager whole steps, "
                        f"{GRAPH_STEPS} in one CUDA graph; compiled-graph: the same with the "
                        "compiled and tuned loss")
    parser.add_argument("--adam", choices=("auto", "fused", "foreach", "single"), default="auto",
                        help="Adam's implementation (auto: the first of them that is supported)")
    parser.add_argument("--heads", choices=("merged", "separate"), default="merged",
                        help="mean and logvar by one product or by two")
    parser.add_argument("--bound-logvar", action="store_true",
                        help="apply cuvae's soft bound (off: as PyTorch users write it)")
    args = protocol.parse_flags(parser)
    if args.device == "cpu" and args.mode not in ("eager", "compile"):
        parser.error(f"--mode {args.mode} needs --device cuda")
    return args


class Peer:
    def __init__(self, args: argparse.Namespace):
        # Before PyTorch is loaded: OpenMP reads it once, and compiled code takes it from there.
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
        import torch
        self.torch, self.args = torch, args
        torch.set_num_threads(args.threads)
        torch.set_num_interop_threads(1)
        if args.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no CUDA device: use --device cpu")
        torch.manual_seed(SEED)
        # Both ways to say it, whatever the defaults of this version.
        if hasattr(torch, "set_float32_matmul_precision"):
            torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")
        if args.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = args.precision == "tf32"
            torch.backends.cudnn.allow_tf32 = args.precision == "tf32"

        import torch_vae
        self.vae = torch_vae
        self.model = torch_vae.Vae(args.input, args.hidden, args.latent,
                                   merged_heads=args.heads == "merged",
                                   bounded=args.bound_logvar).to(args.device)
        self.sizes = (args.input, args.hidden, args.latent)
        self.adam, self.optimizer = self.make_adam()
        # As sparse as MNIST: four pixels in five are zero.
        grey = torch.randint(1, 256, (args.samples, args.input), dtype=torch.uint8)
        grey *= (torch.rand(args.samples, args.input) < 0.2)
        self.data = grey.to(args.device)  # [samples, input], uint8
        self.order = torch.randperm(args.samples).to(args.device)
        self.position = 0
        self.loss = self.compute_loss
        if args.mode not in ("eager", "graph"):
            if not hasattr(torch, "compile"):
                raise RuntimeError(f"PyTorch {torch.__version__} has no torch.compile: "
                                   "use --mode eager")
            # Graphs of its own would nest in ours.
            self.loss = torch.compile(self.compute_loss, dynamic=False, mode={
                "compile": "default", "compiled-graph": "max-autotune-no-cudagraphs"}.get(
                    args.mode, args.mode))
        self.graphs: dict[tuple[int, int], tuple] = {}  # by steps and batch
        self.warm: set[tuple[str, int]] = set()
        self.products: dict[int, list] = {}

    def make_adam(self):
        # Captured steps need the step counters on the device.
        fast = {"capturable": True} if self.args.device == "cuda" else {}
        choices = {"fused": {"fused": True, **fast}, "foreach": {"foreach": True, **fast},
                   "single": {"foreach": False}}
        names = list(choices) if self.args.adam == "auto" else [self.args.adam]
        for name in names:
            try:
                optimizer = self.torch.optim.Adam(self.model.parameters(), lr=1e-3,
                                                  betas=(0.9, 0.999), eps=1e-8, **choices[name])
                # Old versions accept a flag that they cannot run: try it, on zero gradients, which
                # leave the weights as they are.
                for parameter in self.model.parameters():
                    parameter.grad = self.torch.zeros_like(parameter)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                return name, optimizer
            except (RuntimeError, TypeError) as error:
                reason = str(error).splitlines()[0]
        raise RuntimeError(f"Adam's implementation {names[-1]} does not run here: {reason}")

    def describe(self) -> dict:
        torch = self.torch
        # "... BLAS_INFO=mkl, ..." in the build's settings.
        blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
        name = (torch.cuda.get_device_name() if self.args.device == "cuda" else
                re.search(r"CPU capability usage: (\S+)|$", torch.__config__.show()).group(1))
        return {"peer": "pytorch", "version": torch.__version__, "device": self.args.device,
                "device_name": name, "threads": torch.get_num_threads(),
                "blas": blas.group(1) if blas else "unknown", "mode": self.args.mode,
                "adam": self.adam, "precision": self.args.precision, "heads": self.args.heads,
                "bound_logvar": self.args.bound_logvar,
                "sizes": list(self.sizes),
                "work": ["step", "gemm"]}

    def compute_loss(self, index):
        torch = self.torch
        x = self.data.index_select(0, index).to(torch.float32) / 255  # [B, input]
        eps = torch.randn(x.shape[0], self.args.latent, device=x.device)  # [B, latent]
        if self.args.precision == "bf16":
            with torch.autocast(self.args.device, dtype=torch.bfloat16):
                reconstruction, kl = self.model(x, eps)
        else:
            reconstruction, kl = self.model(x, eps)
        return reconstruction + kl

    def capture(self, steps: int, batch: int):
        """A graph of whole steps, and the loss of its last one. Where in the order a step begins is
        counted on the device; the noise is the graph's own, new in every replay."""
        torch = self.torch
        rows = torch.arange(batch, device=self.args.device)
        start = torch.zeros((), dtype=torch.int64, device=self.args.device)

        def step():
            index = self.order[(start + rows) % self.args.samples]
            start.add_(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(index)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):  # compiles, chooses, allocates
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                loss = step()
        return graph, loss

    def replay(self, steps: int, batch: int) -> float:
        """Whole steps by replays; what is left over by a graph of a single one."""
        loss = None
        for size in (GRAPH_STEPS, 1):
            count, steps = divmod(steps, size)
            if count == 0:
                continue
            if (size, batch) not in self.graphs:
                self.graphs[size, batch] = self.capture(size, batch)
            graph, loss = self.graphs[size, batch]
            for _ in range(count):
                graph.replay()
        return loss.item()  # waits for the device

    def train(self, steps: int, batch: int) -> float:
        if self.args.mode in ("graph", "compiled-graph"):
            return self.replay(steps, batch)
        loss = None
        for _ in range(steps):
            if self.position + batch > self.args.samples:
                self.position = 0
            index = self.order[self.position:self.position + batch]
            self.position += batch
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(index)
            loss.backward()
            self.optimizer.step()
        return loss.item()  # waits for the device

    def multiply(self, steps: int, batch: int) -> float:
        torch = self.torch
        if batch not in self.products:
            dtype = torch.bfloat16 if self.args.precision == "bf16" else torch.float32

            def matrix(rows, columns):
                return torch.randn(rows, columns, device=self.args.device, dtype=dtype)

            self.products[batch] = [
                (matrix(k, m).t() if kind == "wgrad" else matrix(m, k),
                 matrix(n, k).t() if kind == "forward" else matrix(k, n),
                 torch.empty(m, n, device=self.args.device, dtype=dtype))
                for kind, m, k, n in self.vae.gemms(*self.sizes, batch)]
        products = self.products[batch]
        for _ in range(steps):
            for a, b, c in products:
                torch.mm(a, b, out=c)
        return products[-1][2][0, 0].item()  # waits for the device

    def serve(self, line: str) -> dict:
        steps, batch, work = protocol.request_of(line, self.args.samples, ("step", "gemm"))
        execute = self.train if work == "step" else self.multiply
        if (work, batch) not in self.warm:
            execute(GRAPH_STEPS + 1 if batch <= 1024 or "graph" in self.args.mode else 4, batch)
            self.warm.add((work, batch))
        start = time.perf_counter()
        value = execute(steps, batch)
        seconds = time.perf_counter() - start
        reply = {"seconds": seconds, "steps": steps, "batch": batch}
        if work == "step":
            reply["loss"] = value
        else:
            flop = sum(2 * m * k * n for _, m, k, n in self.vae.gemms(*self.sizes, batch))
            reply["gflops"] = flop * steps / seconds / 1e9
        return reply


def main() -> int:
    args = parse()
    return protocol.serve("torch_step", lambda: Peer(args), f"PyTorch has no {args.device}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(130)
