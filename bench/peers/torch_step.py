"""One training step of the default model in PyTorch, timed on request: the peer of `cuvae bench`.

At the start one JSON line describes the peer. Then each line of stdin asks for one repeat and gets
one JSON line, so that the caller can interleave repeats of several programs in one run:

    {"steps": 200, "batch": 128}                 -> {"seconds": ..., "steps": 200, "loss": ...}
    {"steps": 200, "batch": 128, "work": "gemm"} -> {"seconds": ..., "steps": 200, "gflops": ...}
    {"steps": 300, "batch": 128, "work": "check", "rows": 8192} -> {"neg_elbo": ..., ...}

"work" is "step" (default), "gemm", the step's matrix products alone, or "check": train from the
start, then neg_elbo of the first rows. A batch size is warmed up (and compiled) at its first use,
outside the timing. A request that cannot be served gets {"error": ...}. The peer ends with status 0
at the end of stdin.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time

import protocol

SEED = 20
MODES = ("eager", "compile", "reduce-overhead", "max-autotune", "graph", "compiled-graph",
         "tuned-graph")
GRAPHS = ("graph", "compiled-graph", "tuned-graph")
GRAPH_STEPS = 20  # whole steps that one replay runs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    protocol.add_flags(parser, "tf32: cuda only; bf16: autocast")
    parser.add_argument("--mode", choices=MODES, default="eager",
                        help="compile: torch.compile of gather, forward, loss and their backward; "
                        "cuda only: reduce-overhead: the same with its CUDA graphs; max-autotune: "
                        "and with its choice of kernels; graph: eager whole steps, "
                        f"{GRAPH_STEPS} in one CUDA graph; compiled-graph, tuned-graph: the same "
                        "with the compiled loss, and with its choice of kernels")
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
        start = protocol.Start(args.start, args) if args.start else None
        self.model = torch_vae.Vae(args.input, args.encoder, args.latent,
                                   merged_heads=args.heads == "merged", bounded=args.bound_logvar,
                                   decoder=args.decoder).to(args.device)
        if start is None:
            # As sparse as MNIST: four pixels in five are zero.
            data = torch.randint(1, 256, (args.samples, args.input), dtype=torch.uint8)
            data *= (torch.rand(args.samples, args.input) < 0.2)
            order = torch.randperm(args.samples)
        else:
            data, order = (torch.from_numpy(a.copy()) for a in (start.data, start.order))
            self.load(start)
        self.start = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.adam, self.optimizer = self.make_adam()
        self.data = data.to(args.device)  # [samples, input], uint8
        self.order = order.to(args.device)
        self.position = 0
        self.loss = self.compute_loss
        if args.mode not in ("eager", "graph"):  # the others compile
            if not hasattr(torch, "compile"):
                raise RuntimeError(f"PyTorch {torch.__version__} has no torch.compile: "
                                   "use --mode eager")
            # Graphs of its own would nest in ours.
            self.loss = torch.compile(self.compute_loss, dynamic=False, mode={
                "compile": "default", "compiled-graph": "default",
                "tuned-graph": "max-autotune-no-cudagraphs"}.get(args.mode, args.mode))
        self.graphs: dict[tuple[int, int], tuple] = {}  # by steps and batch
        self.warm: set[tuple[str, int]] = set()
        self.products: dict[int, list] = {}

    def load(self, start) -> None:
        torch, state = self.torch, {}
        for name, value in self.model.state_dict().items():
            # The merged heads are mean's rows, then logvar's.
            parts = [name.replace("heads", part) for part in ("mean", "logvar")]
            try:
                given = ([start.weights[name]] if "heads" not in name else
                         [start.weights[part] for part in parts])
            except KeyError as error:
                raise protocol.Unreadable(f"{self.args.start} has no tensor {error}") from None
            state[name] = torch.cat([torch.from_numpy(part.copy()) for part in given])
            if state[name].shape != value.shape:
                raise protocol.Unreadable(f"{self.args.start}: {name} is {tuple(state[name].shape)}"
                                          f", not {tuple(value.shape)}")
        self.model.load_state_dict(state)

    def restart(self) -> None:
        """Back to the start, in the memory that captured graphs know."""
        self.model.load_state_dict(self.start)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.position = 0
        for _, _, start in self.graphs.values():
            start.zero_()

    def make_adam(self):
        # Captured steps need the step counters on the device.
        fast = {"capturable": True} if self.args.device == "cuda" else {}
        choices = {"fused": {"fused": True, **fast}, "foreach": {"foreach": True, **fast},
                   "single": {"foreach": False}}
        names = list(choices) if self.args.adam == "auto" else [self.args.adam]
        for name in names:
            try:
                optimizer = self.torch.optim.Adam(self.model.parameters(), lr=self.args.lr,
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
                "sizes": {"input": self.args.input, "encoder": self.args.encoder,
                          "latent": self.args.latent, "decoder": self.args.decoder},
                "work": ["step", "gemm", "check"]}

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
        return graph, loss, start

    def make_graphs(self, steps: int, batch: int) -> None:
        for size, count in ((GRAPH_STEPS, steps // GRAPH_STEPS), (1, steps % GRAPH_STEPS)):
            if count > 0 and (size, batch) not in self.graphs:
                self.graphs[size, batch] = self.capture(size, batch)

    def replay(self, steps: int, batch: int) -> float:
        """Whole steps by replays; what is left over by a graph of a single one."""
        self.make_graphs(steps, batch)
        loss = None
        for size in (GRAPH_STEPS, 1):
            count, steps = divmod(steps, size)
            for _ in range(count):
                graph, loss, _ = self.graphs[size, batch]
                graph.replay()
        return loss.item()  # waits for the device

    def train(self, steps: int, batch: int) -> float:
        if self.args.mode in GRAPHS:
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

    def shapes(self, batch: int) -> list[tuple[str, int, int, int]]:
        args = self.args
        return self.vae.gemms(args.input, args.encoder, args.latent, batch, args.decoder)

    def check(self, request) -> float:
        """neg_elbo after so many steps from the start."""
        torch = self.torch
        # What compiles or captures trains meanwhile: before the start.
        self.warm_up("step", request.batch)
        if self.args.mode in GRAPHS:
            self.make_graphs(request.steps, request.batch)
        self.restart()
        self.train(request.steps, request.batch)
        total = 0.0
        with torch.no_grad():
            for begin in range(0, request.rows, 1024):
                x = self.data[begin:min(begin + 1024, request.rows)].to(torch.float32) / 255
                eps = torch.randn(x.shape[0], self.args.latent, device=x.device)
                total += sum(self.model(x, eps)).item() * x.shape[0]
        return total / request.rows

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
                for kind, m, k, n in self.shapes(batch)]
        products = self.products[batch]
        for _ in range(steps):
            for a, b, c in products:
                torch.mm(a, b, out=c)
        return products[-1][2][0, 0].item()  # waits for the device

    def warm_up(self, work: str, batch: int) -> None:
        if (work, batch) not in self.warm:
            execute = self.train if work == "step" else self.multiply
            execute(GRAPH_STEPS + 1 if batch <= 1024 or self.args.mode in GRAPHS else 4, batch)
            self.warm.add((work, batch))

    def serve(self, line: str) -> dict:
        request = protocol.Request(line, self.args.samples, ("step", "gemm", "check"))
        steps, batch = request.steps, request.batch
        reply = {"steps": steps, "batch": batch}
        if request.work == "check":
            return {"neg_elbo": self.check(request), "rows": request.rows, **reply}
        self.warm_up(request.work, batch)
        execute = self.train if request.work == "step" else self.multiply
        start = time.perf_counter()
        value = execute(steps, batch)
        seconds = time.perf_counter() - start
        reply["seconds"] = seconds
        if request.work == "step":
            reply["loss"] = value
        else:
            flop = sum(2 * m * k * n for _, m, k, n in self.shapes(batch))
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
