"""One training step of the default model in JAX, timed on request: the peer of `cuvae bench`.

The same protocol as torch_step.py's, without "gemm": a JSON line that describes the peer, then one
JSON line for each line of stdin, {"steps": 200, "batch": 128} -> {"seconds": ..., "loss": ...}.

--mode jit compiles one step and calls it from Python. With --mode scan as many steps as are asked
for, at most an epoch, are one compiled program (jit of lax.scan), so that nothing of Python or of a
launch stands between them: the way JAX is fastest on small models. Both donate their state. The
data is resident; gather, scaling, noise, forward, backward and Adam are the step's own work, as
they are ours. The precision of products is given explicitly. At the end of stdin the status is 0;
2 is wrong usage, 3 a file that cannot be read, 4 no such device, or no JAX.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time

import protocol

SEED = 20


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    protocol.add_flags(parser, "of products: tf32: cuda only; bf16: their operands are rounded")
    parser.add_argument("--mode", choices=("jit", "scan"), default="scan")
    parser.add_argument("--unroll", type=int, default=4, help="steps unrolled in the scan's loop")
    return protocol.parse_flags(parser)


class Peer:
    def __init__(self, args: argparse.Namespace):
        # Before JAX is loaded. It takes its cores from what the process may use.
        os.environ["JAX_PLATFORMS"] = args.device
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others share the GPU
        if args.device == "cpu":
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
        import jax
        import jax.numpy as jnp
        self.jax, self.np, self.args = jax, jnp, args
        self.device = jax.devices()[0]
        keys = iter(jax.random.split(jax.random.key(SEED), 64))
        start = protocol.Start(args.start, args) if args.start else None  # sets the input's size
        # Names as cuvae's, but for the heads: mean's rows, then logvar's.
        sizes = [[args.input, *args.encoder], [args.latent, *args.decoder]]
        self.layers = [[f"{side}.{i}" for i in range(len(widths) - 1)]
                       for side, widths in zip(("encoder", "decoder"), sizes)]
        shapes = {name: pair for names, widths in zip(self.layers, sizes)
                  for name, pair in zip(names, zip(widths, widths[1:]))}
        shapes |= {"heads": (args.encoder[-1], 2 * args.latent),
                   "decoder.out": (args.decoder[-1], args.input)}
        if start:
            self.read(start, shapes)
        else:
            self.draw(shapes, keys)
        self.key = next(keys)
        self.restart()
        self.programs: dict[tuple[int, int], object] = {}
        self.warm: set[tuple[int, int]] = set()

    def draw(self, shapes, keys) -> None:
        jax, jnp = self.jax, self.np
        self.weights = {}
        for name, (fan_in, fan_out) in shapes.items():
            bound = 1 / math.sqrt(fan_in)
            draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
            self.weights[name] = {"w": draw(next(keys), (fan_in, fan_out)),
                                  "b": draw(next(keys), (fan_out,))}
        # As sparse as MNIST: four pixels in five are zero.
        shape = (self.args.samples, self.args.input)
        grey = jax.random.randint(next(keys), shape, 1, 256, jnp.int32)
        kept = jax.random.uniform(next(keys), shape) < 0.2
        self.data = jnp.where(kept, grey, 0).astype(jnp.uint8)  # [samples, input]
        self.order = jax.random.permutation(next(keys), self.args.samples)

    def read(self, start, shapes) -> None:
        jnp = self.np
        self.data = jnp.asarray(start.data)  # [samples, input]
        self.order = jnp.asarray(start.order, jnp.int32)
        self.weights = {}
        for name, (fan_in, fan_out) in shapes.items():
            parts = ["encoder.mean", "encoder.logvar"] if name == "heads" else [name]
            try:
                weight, bias = (jnp.concatenate([jnp.asarray(start.weights[f"{part}.{kind}"])
                                                 for part in parts]) for kind in ("weight", "bias"))
            except KeyError as error:
                raise protocol.Unreadable(f"{self.args.start} has no tensor {error}") from None
            if weight.shape != (fan_out, fan_in) or bias.shape != (fan_out,):
                raise protocol.Unreadable(f"{self.args.start}: {name} is {weight.shape}, not "
                                          f"{(fan_out, fan_in)}")
            self.weights[name] = {"w": weight.T, "b": bias}

    def restart(self) -> None:
        jax, jnp = self.jax, self.np
        fresh = lambda: jax.tree.map(jnp.zeros_like, self.weights)
        # Copies: what a program is given is gone.
        self.state = {"parameters": jax.tree.map(jnp.copy, self.weights), "first": fresh(),
                      "second": fresh(), "step": jnp.zeros((), jnp.int32),
                      "start": jnp.zeros((), jnp.int32), "key": jnp.copy(self.key)}

    def describe(self) -> dict:
        return {"peer": "jax", "version": self.jax.__version__, "device": self.args.device,
                "device_name": self.device.device_kind, "threads": self.args.threads,
                "blas": "xla", "mode": self.args.mode, "adam": "written out",
                "precision": self.args.precision, "heads": "merged", "bound_logvar": False,
                "sizes": {"input": self.args.input, "encoder": self.args.encoder,
                          "latent": self.args.latent, "decoder": self.args.decoder},
                "work": ["step", "check"]}

    def product(self, a, b):
        jnp, lax = self.np, self.jax.lax
        if self.args.precision == "bf16":
            return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16),
                              preferred_element_type=jnp.float32)
        if self.args.precision == "tf32":
            return jnp.matmul(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    def loss(self, parameters, x, eps):
        """x [B, input] in [0, 1], eps [B, latent]: reconstruction + kl, averaged over the batch."""
        jax, jnp = self.jax, self.np
        linear = lambda h, name: self.product(h, parameters[name]["w"]) + parameters[name]["b"]

        def hidden(h, names):
            for name in names:
                h = jax.nn.relu(linear(h, name))
            return h

        heads = linear(hidden(x, self.layers[0]), "heads")  # [B, 2 latent]
        mean, logvar = jnp.split(heads, 2, axis=1)
        z = mean + eps * jnp.exp(0.5 * logvar)
        logits = linear(hidden(z, self.layers[1]), "decoder.out")  # [B, input]
        reconstruction = jnp.sum(jnp.maximum(logits, 0) - logits * x +
                                 jnp.log1p(jnp.exp(-jnp.abs(logits))))
        kl = 0.5 * jnp.sum(mean * mean + jnp.exp(logvar) - logvar - 1)
        return (reconstruction + kl) / x.shape[0]

    def step(self, batch, state, data, order):
        jax, jnp = self.jax, self.np
        rows = (state["start"] + jnp.arange(batch, dtype=jnp.int32)) % self.args.samples
        x = data[order[rows]].astype(jnp.float32) / 255  # [B, input]
        key, mine = jax.random.split(state["key"])
        eps = jax.random.normal(mine, (batch, self.args.latent))  # [B, latent]
        loss, gradient = jax.value_and_grad(self.loss)(state["parameters"], x, eps)
        step = state["step"] + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["first"], gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state["second"], gradient)
        scale1, scale2 = 1 - 0.9 ** step.astype(jnp.float32), 1 - 0.999 ** step.astype(jnp.float32)
        parameters = jax.tree.map(
            lambda p, m, v: p - self.args.lr * (m / scale1) / (jnp.sqrt(v / scale2) + 1e-8),
            state["parameters"], first, second)
        return {"parameters": parameters, "first": first, "second": second, "step": step,
                "start": (state["start"] + batch) % self.args.samples, "key": key}, loss

    def program(self, steps, batch):
        """`steps` steps as one compiled program: the new state and the last loss."""
        if (steps, batch) not in self.programs:
            def run(state, data, order):
                if self.args.mode == "jit":
                    return self.step(batch, state, data, order)
                state, losses = self.jax.lax.scan(
                    lambda s, _: self.step(batch, s, data, order), state, None, length=steps,
                    unroll=min(self.args.unroll, steps))
                return state, losses[-1]
            self.programs[steps, batch] = self.jax.jit(run, donate_argnums=0)
        return self.programs[steps, batch]

    def parts(self, steps, batch) -> list[tuple[int, int]]:
        """(steps of one program, how often it runs)."""
        if self.args.mode == "jit":
            return [(1, steps)]
        epoch = max(self.args.samples // batch, 1)
        return [(size, count) for size, count in ((epoch, steps // epoch), (steps % epoch, 1))
                if size > 0 and count > 0]

    def train(self, steps, batch) -> float:
        loss = None
        for size, count in self.parts(steps, batch):
            for _ in range(count):
                self.state, loss = self.program(size, batch)(self.state, self.data, self.order)
        return float(loss)  # waits for the device

    def warm_up(self, steps, batch) -> None:
        """Compiles what will run, by running it."""
        for size, _ in self.parts(steps, batch):
            if (size, batch) not in self.warm:
                self.train(size, batch)
                self.warm.add((size, batch))

    def check(self, request) -> float:
        """neg_elbo after so many steps from the start."""
        jax, jnp = self.jax, self.np
        self.warm_up(request.steps, request.batch)
        self.restart()
        self.train(request.steps, request.batch)
        loss, total, key = jax.jit(self.loss), 0.0, self.key
        for begin in range(0, request.rows, 1024):
            x = self.data[begin:min(begin + 1024, request.rows)].astype(jnp.float32) / 255
            key, mine = jax.random.split(key)
            eps = jax.random.normal(mine, (x.shape[0], self.args.latent))
            total += float(loss(self.state["parameters"], x, eps)) * x.shape[0]
        return total / request.rows

    def serve(self, line: str) -> dict:
        request = protocol.Request(line, self.args.samples, ("step", "check"))
        steps, batch = request.steps, request.batch
        reply = {"steps": steps, "batch": batch}
        if request.work == "check":
            return {"neg_elbo": self.check(request), "rows": request.rows, **reply}
        self.warm_up(steps, batch)
        start = time.perf_counter()
        loss = self.train(steps, batch)
        return {"seconds": time.perf_counter() - start, "loss": loss, **reply}


def main() -> int:
    args = parse()
    return protocol.serve("jax_step", lambda: Peer(args), f"JAX has no {args.device}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(130)
