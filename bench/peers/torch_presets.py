"""The presets in PyTorch: the model that the config.json of `cuvae compare --export` says, its
optimiser, and a free training of it. One implementation for golden files, live parity, free runs and
the rows of IWAE's table."""

from __future__ import annotations

import math
import sys

import torch
from torch.nn import functional as F

from torch_vae import bound_logvar


def activation(name: str, x):
    if name == "none":
        return x
    return F.softplus(x) if name == "softplus" else getattr(torch, name)(x)


class Layers:
    """A list of layers over the parameters of one name."""

    def __init__(self, configs: list[dict], name: str, parameters: dict):
        self.configs, self.name, self.parameters = configs, name, parameters

    def layer(self, config: dict, name: str, x):
        kind = config["type"]
        weight = self.parameters.get(name + ".weight")
        bias = self.parameters.get(name + ".bias")
        stride = [s or 1 for s in config.get("stride", (1, 1))]
        if kind == "linear":
            x = F.linear(x.flatten(1), weight, bias)
        elif kind == "conv2d":
            x = F.conv2d(x, weight, bias, stride, config["padding"])
        elif kind == "conv_transpose2d":
            x = F.conv_transpose2d(x, weight, bias, stride, config["padding"],
                                   config["output_padding"])
        elif kind == "max_pool2d":
            given = [s or k for s, k in zip(config["stride"], config["kernel"])]
            x = F.max_pool2d(x, config["kernel"], given, config["padding"])
        elif kind == "upsample":
            x = F.interpolate(x, scale_factor=tuple(config["factor"]), mode="nearest")
        elif kind == "flatten":
            x = x.flatten(1)
        elif kind == "reshape":
            x = x.reshape(-1, *config["shape"])
        else:
            sys.exit(f"torch_presets: no layer of type {kind} here")
        return activation(config["activation"], x)

    def __call__(self, x):
        for i, config in enumerate(self.configs):
            x = self.layer(config, f"{self.name}.{i}", x)
        return x


class KerasRmsprop:
    """Keras' convention: v = rho v + (1 - rho) g^2, w -= lr g / sqrt(v + eps)."""

    def __init__(self, parameters, lr, rho, eps):
        self.lr, self.rho, self.eps = lr, rho, eps
        self.state = [(p, p.detach() * 0) for p in parameters]

    def step(self):
        for p, v in self.state:
            v.mul_(self.rho).addcmul_(p.grad, p.grad, value=1 - self.rho)
            p.data -= self.lr * p.grad / (v + self.eps).sqrt()


class IwaeAdam:
    """Adam of the IWAE paper's code: the second moment begins at v0, eps stands beside its root,
    and a step goes by the moments that were there before its gradient."""

    def __init__(self, parameters, lr, betas, eps, v0):
        self.lr, self.betas, self.eps, self.t = lr, betas, eps, 0
        self.state = [(p, p.detach() * 0, p.detach() * 0 + v0) for p in parameters]

    def step(self):
        self.t += 1
        b1, b2 = self.betas
        lr = self.lr * math.sqrt(1 - b2 ** self.t) / (1 - b1 ** self.t)
        for p, m, v in self.state:
            p.data -= lr * m / (v.sqrt() + self.eps)
            m.mul_(b1).add_(p.grad, alpha=1 - b1)
            v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)


def optimizer_of(config: dict, parameters: list):
    o, lr = config["optimizer"], config["lr"]
    if o["type"] == "adam" and o["v0"] == 0:
        return torch.optim.Adam(parameters, lr=lr, betas=tuple(o["betas"]), eps=o["eps"])
    if o["type"] == "rmsprop" and o["convention"] == "keras":
        return KerasRmsprop(parameters, lr, o["rho"], o["eps"])
    if o["type"] == "iwae_adam":
        return IwaeAdam(parameters, lr, o["betas"], o["eps"], o["v0"])
    sys.exit(f"torch_presets: no optimiser {o} here")


def bernoulli_nll(logits, x):
    """-log p(x), summed over the pixels, [rows]."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


def gaussian_log_density(z, mean, logvar):
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mean) ** 2 / logvar.exp()).sum(1)


def gaussian_kl(mean, logvar):
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over the latents, [rows]."""
    return 0.5 * (mean ** 2 + logvar.exp() - 1 - logvar).sum(1)


class Vae:
    """The model that an export's config.json says."""

    def __init__(self, config: dict, initial: dict, dtype):
        self.config = config
        self.p = {name: torch.tensor(value).to(dtype).requires_grad_()
                  for name, value in initial.items()}
        self.encoder = Layers(config["encoder"], "encoder", self.p)
        self.decoder = Layers(config["decoder"], "decoder", self.p)

    def parameters(self) -> list:
        return list(self.p.values())

    def head(self, name: str, h):
        return h @ self.p[name + ".weight"].T + self.p[name + ".bias"]

    def encode(self, x, y):
        condition = self.config["condition"]
        if condition["on"] == "label" and condition["encoder"] == "concat":
            h = self.encoder(torch.cat([x, y], 1))
        else:
            h = self.encoder(x.reshape(-1, *self.config["image"]))
        h = h.flatten(1)
        raw = self.head("encoder." + self.config["latent_scale"], h)
        if self.config["latent_scale"] == "log_sigma":
            raw = 2 * raw
        return self.head("encoder.mean", h), bound_logvar(raw)

    def decode(self, z, y):
        condition = self.config["condition"]
        if condition["on"] == "label" and condition["decoder"] == "concat":
            z = torch.cat([z, y], 1)
        h = self.decoder(z)
        return self.decoder.layer(self.config["out"], "decoder.out", h).flatten(1)

    def log_weights(self, x, y, eps, samples):
        """nll, [B * samples], log p(x, z) / q(z|x) of the samples, and the kl of each row, [B]."""
        mean, logvar = self.encode(x, y)
        wide = [t.repeat_interleave(samples, 0) for t in (mean, logvar, x)]
        z = wide[0] + eps * (wide[1] / 2).exp()  # [B * samples, latent]
        told = y.repeat_interleave(samples, 0) if y is not None else None
        nll = bernoulli_nll(self.decode(z, told), wide[2])
        log_prior = gaussian_log_density(z, torch.zeros_like(z), torch.zeros_like(z))
        return nll, log_prior - gaussian_log_density(z, *wide[:2]) - nll, gaussian_kl(mean, logvar)

    def losses(self, x, y, eps):
        """Loss, reconstruction and kl, averages over the batch."""
        config = self.config
        samples = config["samples"]
        nll, log_w, kl = self.log_weights(x, y, eps, samples)
        if config["objective"] == "iwae":
            bound = torch.logsumexp(log_w.reshape(-1, samples), 1) - math.log(samples)
            return -bound.mean(), nll.mean(), kl.mean()
        if config["kl"] == "mc":
            kl = -log_w - nll
        return nll.mean() + config["beta"] * kl.mean(), nll.mean(), kl.mean()


class M2(Vae):
    """Kingma et al., "Semi-supervised learning with deep generative models" (2014): a classifier
    q(y|x) beside the encoder q(z|x, y) and the decoder p(x|y, z), p(y) uniform."""

    def __init__(self, config: dict, initial: dict, dtype):
        super().__init__(config, initial, dtype)
        self.classifier = Layers(config["classifier"], "classifier", self.p)
        self.classes = config["condition"]["classes"]

    def class_logits(self, x):
        return self.head("classifier.out", self.classifier(x))

    def bound(self, x, y, eps):
        """-L(x, y) but for -log p(y): nll and kl of each row."""
        nll, _, kl = self.log_weights(x, y, eps, 1)
        return nll, kl

    def unlabelled(self, x, eps):
        """Reconstruction and kl of -U(x), [B] each: sum_y q(y|x) (-L(x, y) + log q(y|x)); eps
        [B * classes, latent], the classes of a row beside each other."""
        log_share = torch.log_softmax(self.class_logits(x), 1)  # [B, classes]
        share = log_share.exp()
        every = torch.eye(self.classes, dtype=x.dtype).repeat(len(x), 1)
        nll, kl = (t.reshape(share.shape)
                   for t in self.bound(x.repeat_interleave(self.classes, 0), every, eps))
        return (share * nll).sum(1), (share * (kl + log_share)).sum(1) + math.log(self.classes)

    def losses(self, x, eps, labelled_x, labelled_y, labelled_eps):
        """Loss for one row of the data, reconstruction and kl of the batch's -U. Of all N rows, N_l
        with labels, the paper's J^alpha = sum of -L + sum of -U + alpha N (mean of -log q(y|x) over
        the labelled), divided by N."""
        reconstruction, kl = (t.mean() for t in self.unlabelled(x, eps))
        target = F.one_hot(labelled_y, self.classes).to(x.dtype)
        bound = sum(t.mean() for t in self.bound(labelled_x, target, labelled_eps))
        wrong = F.cross_entropy(self.class_logits(labelled_x), labelled_y)
        share = self.config["labelled_share"]
        loss = ((1 - share) * (reconstruction + kl)
                + share * (bound + math.log(self.classes)) + self.config["alpha"] * wrong)
        return loss, reconstruction, kl


def pixels(config: dict, rows, generator):
    """The model's x of bytes [B, features]; binarised anew where the configuration says so."""
    if config["binarise"] == "none":
        return (rows.float() - config["pixel_shift"]) * config["pixel_scale"]
    if config["binarise"] == "dynamic":
        p = rows.float() / 255
        return (torch.rand(p.shape, generator=generator) < p).float()
    sys.exit(f"torch_presets: no pixels binarised as {config['binarise']} here")


def one_hot(config: dict, labels):
    if config["condition"]["on"] == "none":
        return None
    return F.one_hot(labels, config["condition"]["classes"]).float()


def model_of(config: dict, initial: dict, dtype=torch.float32):
    return (M2 if config["objective"] == "m2" else Vae)(config, initial, dtype)


def train_freely(model, optimizer, images, labels, epochs: int, generator, shuffle: bool = True,
                 before=None, labelled=None) -> None:
    """Epochs over images [N, features] (bytes) in the generator's order, noise and binarisation,
    without the last partial batch; before(epoch) is called before each, counted from 0. labelled,
    for M2: images and labels of the rows that keep theirs, and how many of them a step draws."""
    config = model.config
    batch = config["batch_size"]
    draws = config["samples"] if labelled is None else model.classes

    def noise(rows: int):
        return torch.randn(rows, config["latent"], generator=generator)

    factor = batch if config["batch_reduction"] == "sum" else 1
    for epoch in range(epochs):
        if before is not None:
            before(epoch)
        order = torch.randperm(len(images), generator=generator) if shuffle else torch.arange(
            len(images))
        for index in order[:len(order) // batch * batch].split(batch):
            x = pixels(config, images[index], generator)
            if labelled is None:
                inputs = (x, one_hot(config, labels[index]), noise(batch * draws))
            else:
                drawn = torch.randint(len(labelled[0]), (labelled[2],), generator=generator)
                inputs = (x, noise(batch * draws), pixels(config, labelled[0][drawn], generator),
                          labelled[1][drawn], noise(labelled[2]))
            for parameter in model.parameters():
                parameter.grad = None
            (factor * model.losses(*inputs)[0]).backward()
            optimizer.step()


def evaluate(model, images, labels, generator, rows: int = 1000) -> dict:
    """neg_elbo = reconstruction + kl at beta = 1, one latent sample each; for more samples than one
    the importance weighted bound -L_K, too."""
    config = model.config
    samples = config["samples"]
    totals = {"reconstruction": 0.0, "kl": 0.0, "bound": 0.0}
    with torch.no_grad():
        for at in range(0, len(images), rows):
            x = pixels(config, images[at:at + rows], generator)
            eps = torch.randn(len(x) * samples, config["latent"], generator=generator)
            nll, log_w, kl = model.log_weights(x, one_hot(config, labels[at:at + rows]), eps, samples)
            bound = math.log(samples) - torch.logsumexp(log_w.reshape(-1, samples), 1)
            totals["reconstruction"] += nll.double().sum().item() / samples
            totals["kl"] += kl.double().sum().item()
            totals["bound"] += bound.double().sum().item()
    result = {name: total / len(images) for name, total in totals.items()}
    if samples == 1:
        del result["bound"]
    return {"neg_elbo": result["reconstruction"] + result["kl"], **result}


def evaluate_m2(model, images, labels, generator, rows: int = 200) -> dict:
    """neg_elbo = reconstruction + kl of -U, and the share of labels that q(y|x) has right."""
    config = model.config
    totals = {"reconstruction": 0.0, "kl": 0.0, "accuracy": 0.0}
    with torch.no_grad():
        for at in range(0, len(images), rows):
            x = pixels(config, images[at:at + rows], generator)
            eps = torch.randn(len(x) * model.classes, config["latent"], generator=generator)
            right = model.class_logits(x).argmax(1) == labels[at:at + rows]
            for name, values in zip(totals, (*model.unlabelled(x, eps), right)):
                totals[name] += values.double().sum().item()
    result = {name: total / len(images) for name, total in totals.items()}
    return {"neg_elbo": result["reconstruction"] + result["kl"], **result}


def log_likelihoods(model, images, generator, samples: int):
    """log p(x) by importance weights of each of images [N, features], float64 [N]."""
    config, values = model.config, []
    with torch.no_grad():
        for image in images:
            x = pixels(config, image[None], generator)
            mean, logvar = model.encode(x, None)
            z = mean + torch.randn(samples, config["latent"], generator=generator) * (logvar / 2).exp()
            # sum_x log p = l x - log(1 + e^l), without `samples` copies of the image
            logits = model.decode(z, None)
            log_p = logits @ x[0] - F.softplus(logits).sum(1)
            log_w = (log_p + gaussian_log_density(z, 0 * z, 0 * z)
                     - gaussian_log_density(z, mean, logvar))
            values.append(float(torch.logsumexp(log_w, 0)) - math.log(samples))
    return torch.tensor(values, dtype=torch.float64)


def iwae_rate(lr: float, epoch: int) -> float:
    """Learning rate of the IWAE paper's code in an epoch counted from 0: 3^i epochs at
    10^(-i / 7) of the first, rounded as it rounds."""
    stage, end = 0, 1
    while epoch >= end and stage < 7:
        stage += 1
        end += 3 ** stage
    return lr / 10 * round(10 ** (1 - stage / 7), 1)
