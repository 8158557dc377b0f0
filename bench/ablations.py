"""Try what charrnn does not have: ``python bench/ablations.py TEXT --hidden-size 256``.

A copy of charrnn's GRU, batches and schedule in PyTorch, with one change at a time. Prints the loss
of the validation and the test split in nats per character, of the last weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

LANES, EVAL_STEPS = 64, 256  # of an evaluation
CHANGES: dict[str, dict[str, Any]] = {
    "none": {},
    "linear schedule": {"schedule": "linear"},
    "constant rate": {"schedule": "constant"},
    "warm-up of 2%": {"warm_up": 0.02},
    "warm-up of 10%": {"warm_up": 0.1},
    "one cycle, 30% up": {"warm_up": 0.3},
    "one cycle, 30% up, twice the rate": {"warm_up": 0.3, "rate": 2.0},
    "rate x 1.5": {"rate": 1.5},
    "rate x 0.7": {"rate": 0.7},
    "weight decay 0.01": {"weight_decay": 0.01},
    "weight decay 0.03": {"weight_decay": 0.03},
    "weight decay 0.1": {"weight_decay": 0.1},
    "dropout 0.1": {"dropout": 0.1},
    "dropout 0.2": {"dropout": 0.2},
    "variational dropout 0.1": {"variational": 0.1},
    "variational dropout 0.2": {"variational": 0.2},
    "variational dropout 0.1 of h'": {"recurrent": 0.1},
    "zoneout 0.05": {"zoneout": 0.05},
    "zoneout 0.1": {"zoneout": 0.1},
    "layer normalization": {"layer_norm": True},
    "layer normalization, half the rate": {"layer_norm": True, "rate": 0.5},
    "2 layers of 5/8 of the size": {"num_layers": 2, "size": 5 / 8},
    "the same, residual": {"num_layers": 2, "size": 5 / 8, "residual": True},
    "3 layers of half the size": {"num_layers": 3, "size": 0.5},
    "3 layers, residual": {"num_layers": 3, "size": 0.5, "residual": True},
    "batch grows from a quarter": {"batch_stages": (0.25, 0.5, 1)},
    "sequence grows from a quarter": {"length_stages": (0.25, 0.5, 1)},
    "sequences of 32": {"length_stages": (0.5,)},
    "sequences of 128": {"length_stages": (2,)},
    "RMSprop, a quarter of the rate": {"optimizer": "rmsprop", "rate": 0.25},
    "NAdam": {"optimizer": "nadam"},
}


class Plan(NamedTuple):
    """What a run does; the changes override it."""

    schedule: str = "cosine"
    warm_up: float = 0.0
    rate: float = 1.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    variational: float = 0.0
    recurrent: float = 0.0
    zoneout: float = 0.0
    layer_norm: bool = False
    num_layers: int = 1
    size: float = 1.0
    residual: bool = False
    batch_stages: tuple[float, ...] = (1,)
    length_stages: tuple[float, ...] = (1,)
    optimizer: str = "adam"

    def factor(self, x: float) -> float:
        """Return the share of the learning rate at x, from 0 to 1, of the run."""
        if x < self.warm_up:
            return x / self.warm_up
        x = (x - self.warm_up) / (1 - self.warm_up)
        return {"cosine": 0.5 * (1 + math.cos(math.pi * x)), "linear": 1 - x}.get(self.schedule, 1)


class Layer(nn.Module):
    """A GRU whose reset gate is applied before the matrix product."""

    def __init__(self, inputs: int, H: int, scale: float) -> None:
        super().__init__()
        self.H = H
        self.Wxh = nn.Parameter((torch.rand(3 * H, inputs) * 2 - 1) * scale)
        blocks = [torch.linalg.qr(torch.randn(H, H))[0] for _ in range(3)]
        self.Whh = nn.Parameter(torch.cat(blocks))
        self.bh = nn.Parameter(torch.zeros(3 * H))
        self.gain_x, self.gain_h = (nn.Parameter(torch.ones(3 * H)) for _ in range(2))

    def forward(self, ax: Tensor, h: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Return hs (T, B, H) and the last h, given Wxh x (T, B, 3 H)."""
        H, hs = self.H, []
        Wzr, Wn = self.Whh[: 2 * H].t(), self.Whh[2 * H :].t()
        if plan.layer_norm:
            ax = normalize(ax, H) * self.gain_x
        ax = ax + self.bh
        mask = dropout_mask(plan.recurrent, h) if self.training else torch.ones_like(h)
        for a in ax:
            hprev = h * mask
            zr = hprev @ Wzr
            if plan.layer_norm:
                zr = normalize(zr, H) * self.gain_h[: 2 * H]
            z, r = torch.sigmoid(a[:, : 2 * H] + zr).chunk(2, 1)
            rh = (r * hprev) @ Wn
            if plan.layer_norm:
                rh = normalize(rh, H) * self.gain_h[2 * H :]
            new = h + z * (torch.tanh(a[:, 2 * H :] + rh) - h)
            if plan.zoneout:
                kept = torch.full_like(h, plan.zoneout)
                kept = torch.bernoulli(kept) if self.training else kept
                new = kept * h + (1 - kept) * new
            h = new
            hs.append(h)
        return torch.stack(hs), h


class Model(nn.Module):
    def __init__(self, V: int, H: int, plan: Plan) -> None:
        super().__init__()
        self.plan, narrow = plan, math.sqrt(1 / H)
        sizes = [(V, math.sqrt(3)), *[(H, narrow)] * (plan.num_layers - 1)]
        self.layers = nn.ModuleList([Layer(inputs, H, scale) for inputs, scale in sizes])
        self.Why = nn.Parameter((torch.rand(V, H) * 2 - 1) * narrow)
        self.by = nn.Parameter(torch.zeros(V))

    def forward(self, xs: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits (T, B, V) and the last states."""
        plan, x, new_state = self.plan, xs, []
        for i, (layer, h) in enumerate(zip(self.layers, state, strict=True)):
            ax = functional.embedding(xs, layer.Wxh.t()) if i == 0 else x @ layer.Wxh.t()
            hs, h = layer(ax, h, plan)
            new_state.append(h)
            x = hs + x if plan.residual and i else hs
            x = functional.dropout(x, plan.dropout, self.training)
            if self.training:
                x = x * dropout_mask(plan.variational, x[0])
        return x @ self.Why.t() + self.by, new_state

    def zero_state(self, B: int) -> list[Tensor]:
        return [self.by.new_zeros(B, layer.H) for layer in self.layers]


def normalize(a: Tensor, H: int) -> Tensor:
    """Ba et al., 2016, each gate on its own."""
    return functional.layer_norm(a.unflatten(-1, (-1, H)), (H,)).flatten(-2)


def dropout_mask(p: float, like: Tensor) -> Tensor:
    return torch.bernoulli(torch.full_like(like, 1 - p)) / (1 - p)


def lanes(ids: Tensor, B: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of B lanes that read a text, (n, B) each."""
    n = (len(ids) - 1) // B
    return ids[: B * n].view(B, n).t(), ids[1 : B * n + 1].view(B, n).t()


@torch.no_grad()
def evaluate(model: Model, ids: Tensor) -> float:
    model.eval()
    (xs, ys), state, total = lanes(ids, LANES), model.zero_state(LANES), 0.0
    for t in range(0, len(xs), EVAL_STEPS):
        logits, state = model(xs[t : t + EVAL_STEPS], state)
        targets = ys[t : t + EVAL_STEPS].flatten()
        total += functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
    model.train()
    return total / ys.numel()


def make_optimizer(model: Model, plan: Plan) -> torch.optim.Optimizer:
    params = list(model.parameters())
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(params, alpha=0.95)
    if plan.optimizer == "nadam":
        return torch.optim.NAdam(params)
    return torch.optim.AdamW(params, weight_decay=plan.weight_decay)


def train(model: Model, ids: Tensor, plan: Plan, B: int, T: int, lr: float, steps: int) -> None:
    """Read as many characters as ``steps`` batches of B sequences of T characters have."""
    optimizer, read, planned = make_optimizer(model, plan), 0, steps * B * T
    stages = max(len(plan.batch_stages), len(plan.length_stages))
    for stage in range(stages):
        size = round(B * plan.batch_stages[min(stage, len(plan.batch_stages) - 1)])
        length = round(T * plan.length_stages[min(stage, len(plan.length_stages) - 1)])
        (xs, ys), state = lanes(ids, size), model.zero_state(size)
        at = read // size % (len(xs) - length)
        while read < planned * (stage + 1) / stages:
            if at + length > len(xs):
                at, state = 0, model.zero_state(size)
            for group in optimizer.param_groups:
                group["lr"] = lr * plan.rate * plan.factor(read / planned)
            logits, state = model(xs[at : at + length], [h.detach() for h in state])
            loss = functional.cross_entropy(logits.flatten(0, 1), ys[at : at + length].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            at, read = at + length, read + size * length


@click.command()
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--change", multiple=True, type=click.Choice([*CHANGES]), help="All by default.")
@click.option("--hidden-size", default=256)
@click.option("--batch-size", default=64)
@click.option("--seq-length", default=64)
@click.option("--learning-rate", default=0.008)
@click.option("--max-steps", default=2400)
@click.option("--seed", default=0)
def main(
    text: Path,
    change: tuple[str, ...],
    hidden_size: int,
    batch_size: int,
    seq_length: int,
    learning_rate: float,
    max_steps: int,
    seed: int,
) -> None:
    """Train on 90% of TEXT with each change, and print a table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    characters = text.read_bytes().decode()
    index = {c: i for i, c in enumerate(sorted(set(characters)))}
    ids = torch.tensor([index[c] for c in characters], device=device)
    held_out = round(0.05 * len(ids))
    training, val, test = ids.split([len(ids) - 2 * held_out, held_out, held_out])
    click.echo("| change | validation, test |\n|---|---|")
    for name in change or CHANGES:
        torch.manual_seed(seed)
        plan = Plan(**CHANGES[name])
        model = Model(len(index), round(hidden_size * plan.size), plan).to(device)
        train(model, training, plan, batch_size, seq_length, learning_rate, max_steps)
        click.echo(f"| {name} | {evaluate(model, val):.4f}, {evaluate(model, test):.4f} |")


if __name__ == "__main__":
    main()
