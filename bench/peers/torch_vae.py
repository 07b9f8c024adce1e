"""The default model of cuvae in PyTorch: a VAE of dense layers with a Bernoulli likelihood.

    x [B, input] -> relu(linear) [B, hidden] -> mean, logvar [B, latent]
    z = mean + eps * exp(logvar / 2)         -> relu(linear) [B, hidden] -> logits [B, input]
    loss = reconstruction + beta * kl, in nats: summed over dimensions, averaged over the batch

with one hidden layer on each side, or as many as there are widths in `hidden` and `decoder`.

Parameters carry cuvae's names (encoder.0.weight, encoder.mean.weight, decoder.out.bias, ...), so
that a state dict and a model.safetensors can be exchanged as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


def bound_logvar(v: torch.Tensor) -> torch.Tensor:
    """Identity on [-10, 10]; beyond it sign(v) * (10 + 10 * tanh((|v| - 10) / 10))."""
    inner = v.clamp(-10.0, 10.0)
    return inner + 10.0 * torch.tanh((v - inner) / 10.0)


class Vae(nn.Module):
    """merged_heads computes mean and logvar by one product of twice the width (`encoder.heads`,
    mean's rows first): the same numbers with two products and two launches fewer a step."""

    def __init__(self, input: int = 784, hidden: int | Sequence[int] = 512, latent: int = 32,
                 merged_heads: bool = False, bounded: bool = True,
                 decoder: Sequence[int] | None = None):
        super().__init__()
        hidden = [hidden] if isinstance(hidden, int) else list(hidden)
        decoder = hidden[::-1] if decoder is None else list(decoder)
        self.bounded = bounded
        # nn.Linear draws weights and biases from U(+-1/sqrt(fan_in)): cuvae's init "torch".
        stack = lambda sizes: {str(i): nn.Linear(a, b)
                               for i, (a, b) in enumerate(zip(sizes, sizes[1:]))}
        heads = {"heads": 2 * latent} if merged_heads else {"mean": latent, "logvar": latent}
        self.encoder = nn.ModuleDict({
            **stack([input, *hidden]),
            **{name: nn.Linear(hidden[-1], size) for name, size in heads.items()}})
        self.decoder = nn.ModuleDict({**stack([latent, *decoder]),
                                      "out": nn.Linear(decoder[-1], input)})
        self.depth = (len(hidden), len(decoder))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = x
        for i in range(self.depth[0]):
            h = F.relu(self.encoder[str(i)](h))  # [B, hidden]
        if "heads" in self.encoder:
            mean, logvar = self.encoder["heads"](h).chunk(2, dim=1)  # [B, latent]
        else:
            mean, logvar = self.encoder["mean"](h), self.encoder["logvar"](h)  # [B, latent]
        return mean, bound_logvar(logvar) if self.bounded else logvar

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        h = z
        for i in range(self.depth[1]):
            h = F.relu(self.decoder[str(i)](h))  # [B, hidden]
        return self.decoder["out"](h)  # [B, input]

    def forward(self, x: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction and KL, each averaged over the batch; x in [0, 1], eps ~ N(0, I)."""
        mean, logvar = self.encode(x)
        logits = self.decode(mean + eps * torch.exp(0.5 * logvar))
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * torch.sum(mean * mean + torch.exp(logvar) - logvar - 1.0)
        return reconstruction / x.shape[0], kl / x.shape[0]


def gemms(input: int, hidden: int | Sequence[int], latent: int, batch: int,
          decoder: Sequence[int] | None = None) -> list[tuple[str, int, int, int]]:
    """(kind, m, k, n) of the step's matrix products (11 with a hidden layer on each side), heads
    merged. Kinds and layouts: forward x [B, in] W^T, wgrad dy^T [out, B] x, dgrad dy [B, out] W,
    with W [out, in]."""
    hidden = [hidden] if isinstance(hidden, int) else list(hidden)
    decoder = hidden[::-1] if decoder is None else list(decoder)
    sizes = [input, *hidden, 2 * latent], [latent, *decoder, input]
    products = []
    for layer, (i, o) in enumerate([pair for part in sizes for pair in zip(part, part[1:])]):
        products += [("forward", batch, i, o), ("wgrad", o, batch, i)]
        if layer > 0:
            products.append(("dgrad", batch, o, i))
    return products
