"""PyTorch's side: the same jobs with nn.RNN, nn.GRU, nn.LSTM and, for sampling, their cells."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class Net(nn.Module):
    """One-hot or embedded characters, a recurrence, an affine output."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Create the layers of ``job``."""
        super().__init__()
        V, H, L = job["V"], job["H"], job["L"]
        kinds = {"vanilla": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        self.input: Callable[[torch.Tensor], torch.Tensor]
        if job["input"] == "embedding":
            self.input = nn.Embedding(V, min(V, H))
        else:
            self.input = lambda xs: nn.functional.one_hot(xs, V).float()
        self.rnn = kinds[job["cell"]](min(V, H) if job["input"] == "embedding" else V, H, L)
        self.out = nn.Linear(H, V)

    def forward(self, xs: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Return the logits of ids (T, B), and the last state."""
        hs, state = self.rnn(self.input(xs), state)
        return self.out(hs), state


def text(V: int, n: int = 1_000_000) -> torch.Tensor:
    """Return the ids of the text that charrnn reads."""
    weights = 1 / np.arange(1, V + 1)
    return torch.from_numpy(np.random.default_rng(0).choice(V, n, p=weights / weights.sum()))


def prepare(job: dict[str, Any]) -> Callable[[], int]:
    """Prepare the job."""
    return {"train": train, "sample": sample, "score": score}[job["work"]](job)


def detach(state: Any) -> Any:
    """Return the state without its history."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


def train(job: dict[str, Any]) -> Callable[[], int]:
    """One step: a batch, forward, backward, clipping, fused Adam."""
    B, T, V = job["B"], job["T"], job["V"]
    lanes = text(V)[: 1_000_000 // B * B].view(B, -1).T.contiguous()  # (steps, B)
    net = Net(job)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002, fused=True)
    at, state = 0, None

    def step() -> int:
        nonlocal at, state
        if at + T + 1 > len(lanes):
            at, state = 0, None
        xs, ys = lanes[at : at + T], lanes[at + 1 : at + T + 1]
        optimizer.zero_grad(set_to_none=True)
        logits, state = net(xs, state)
        state = detach(state)
        loss = nn.functional.cross_entropy(logits.reshape(-1, V), ys.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        loss.item()
        at += T
        return B * T

    return step


def sample(job: dict[str, Any]) -> Callable[[], int]:
    """Sample a hundred characters of B texts, a step at a time."""
    B, H = job["B"], job["H"]
    net = Net(job).eval()
    kinds = {"vanilla": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
    cells = []
    for l in range(job["L"]):
        cell = kinds[job["cell"]](H if l else net.rnn.input_size, H)
        for name, weight in cell.named_parameters():
            weight.data = getattr(net.rnn, f"{name}_l{l}").data
        cells.append(cell)
    lstm = job["cell"] == "lstm"
    states: list[Any] = [
        (torch.zeros(B, H), torch.zeros(B, H)) if lstm else torch.zeros(B, H) for _ in cells
    ]
    xs = torch.zeros(B, dtype=torch.long)

    @torch.inference_mode()
    def hundred() -> int:
        nonlocal xs
        for _ in range(100):
            x = net.input(xs)
            for l, cell in enumerate(cells):
                states[l] = cell(x, states[l])
                x = states[l][0] if lstm else states[l]
            xs = torch.multinomial(torch.softmax(net.out(x), -1), 1)[:, 0]
            xs.tolist()
        return 100 * B

    return hundred


def score(job: dict[str, Any]) -> Callable[[], int]:
    """Score a text of half a million characters in B lanes, T steps at a time."""
    B, T, V = job["B"], job["T"], job["V"]
    lanes = text(V, 500_000 // B * B).view(B, -1).T.contiguous()
    net = Net(job).eval()

    @torch.inference_mode()
    def whole() -> int:
        state, losses = None, []
        for at in range(0, len(lanes) - 1, T):
            ys = lanes[at + 1 : at + 1 + T]
            logits, state = net(lanes[at : at + len(ys)], state)
            losses.append(
                nn.functional.cross_entropy(logits.view(-1, V), ys.reshape(-1), reduction="none")
            )
        return len(torch.cat(losses))

    return whole
