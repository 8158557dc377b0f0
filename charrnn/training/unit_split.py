"""Division of an LSTM's hidden units among workers: each computes the gates of its own units.

A product of half the rows with all lanes is faster than one of all rows with half the lanes. The
price is a meeting at every step: h and, backward, da are in shared memory, and each worker waits
until the others have written theirs. The rows of da and dax are sorted by worker, gate and unit.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy import add, dot, multiply

from charrnn import affine, loss
from charrnn.arrays import Array, Parameters, empty_feature_major, merge_time_batch, repeat_steps
from charrnn.cluster import NUM_EXTRA
from charrnn.network import Network, apply_dropout
from charrnn.training.meeting import Meeting, can_meet, meeting_shapes
from charrnn.training.shares import Share
from charrnn.workers import Shapes, SharedArrays

MIN_LANES = 8  # with fewer, a step is too short for a meeting
MAX_LANES = 64  # for each worker; a product of as many lanes is fast enough
NAMES = ("Wxh", "Whh", "bh")


def divides_units(network: Network, B: int, N: int) -> bool:
    """Return whether N workers divide the units, for batches of B lanes."""
    pays = MIN_LANES <= B < MAX_LANES * N and network.hidden_size >= N > 1
    is_lstm = network.architecture[0] == "lstm" and type(network) is Network
    return is_lstm and pays and can_meet()


def unit_shapes(network: Network, T: int, B: int, N: int) -> Shapes:
    """Return the shapes of what N workers share only if they divide the units."""
    L, H, dtype = network.num_layers, network.hidden_size, network.params.vector.dtype.str
    return {
        "states": ((L, 2, T + 1, H, B), dtype),
        "hs": ((L, H, T + 1, B), dtype),
        "outputs": ((L, H, T, B), dtype),  # hs after dropout
        "da": ((T, 4 * H, B), dtype),
        "dax": ((4 * H, T, B), dtype),
        "dx": ((H, T, B), dtype),
        **meeting_shapes(N),
    }


class UnitShare(Share):
    """The gates of some units, and the output of some steps.

    The gradients of the gates are written to those of worker 0, the gradients of the output, which
    are partial sums, to its own.
    """

    def __init__(self, network: Network, arrays: SharedArrays, k: int, part: slice) -> None:
        super().__init__(network, arrays, k, part)
        grads, dtype = arrays["grads"], arrays["grads"].dtype
        self.grads = Parameters(network.grads.shapes, dtype, grads[0, :-NUM_EXTRA])
        self.k, self.N, self.meet = k, len(grads), Meeting(arrays, k)

        # the units of each worker, those of this one, and its rows of da
        (T, B), V, self.H = arrays["xs"].shape, network.vocab_size, network.hidden_size
        ends = [self.H * j // self.N for j in range(self.N + 1)]
        self.units = [slice(*pair) for pair in pairwise(ends)]
        self.own, self.gates = self.units[k], slice(4 * ends[k], 4 * ends[k + 1])
        self.size = size = ends[k + 1] - ends[k]

        # the cell's views: it reads all of h', and writes h of the own units
        cell, Whh_h = network.cell, repeat_steps(np.empty((4 * size, B), dtype), T)
        self.views, self.rows = [], []
        for states in arrays["states"]:
            views = cell.new_views(np.empty((T, 4 * size, B), dtype), states[:, :, self.own], Whh_h)
            self.views.append(views._replace(hprev=states[0, :-1]))
            self.rows.append(list(map(views._make, zip(*self.views[-1], strict=True))))
        self.dstate, scratch = np.empty((2, 2, size, B), dtype)
        repeated = [repeat_steps(each, T).swapaxes(0, 1) for each in (self.dstate, scratch)]
        self.dviews = cell.new_dviews(arrays["da"][:, self.gates], *repeated)
        self.drows = list(map(self.dviews._make, zip(*self.dviews, strict=True)))

        # feature-major arrays, (T, N, B); and buffers of its own
        self.hs, self.outputs = (arrays[name].swapaxes(1, 2) for name in ("hs", "outputs"))
        self.dax, self.dx = (arrays[name].swapaxes(0, 1) for name in ("dax", "dx"))
        self.W_plus_b, self.dhs = np.empty((4 * size, V), dtype), np.empty((T, size, B), dtype)
        self.product = empty_feature_major(T, 4 * size, B, dtype)
        self.logits = empty_feature_major(-(-T // self.N), network.num_outputs, B, dtype)
        self.one_hot = np.empty((T * B, V if V <= affine.MAX_ONE_HOT else 0), dtype)

    @np.errstate(all="ignore")
    def loss_and_grad(self, steps: int, scale: float, dropout: bool) -> float:
        """Return the summed loss of some steps, in nats; write gradients times ``scale``."""
        try:
            masks = self.arrays["masks"][:, :steps, self.own] if dropout else None
            self._forward(steps, masks)
            nats = self._output(steps, scale)
            self._backward(steps, masks)
        except BaseException:
            self.meet.release()
            raise
        return nats

    def _forward(self, steps: int, masks: Array | None) -> None:
        """Run the layers."""
        a, own, step = self.arrays, self.own, self.network.cell.step
        for l, states in enumerate(a["states"]):
            Wxh, Whh, bh = (self._own_rows(self.network.params[f"{l}.{n}"]) for n in NAMES)
            ax = self.views[l].a[:steps]
            if l == 0:
                affine.forward_ids(Wxh, bh[:, 0], a["xs"][:steps], self.W_plus_b, ax)
            else:
                x = merge_time_batch(self.outputs[l - 1][:steps])
                affine.forward(Wxh, bh[:, 0], x, self.product[:steps], ax)
            states[:, 0, own] = a["state"][l][:, own]
            self.meet()
            for row in self.rows[l][:steps]:
                step(Whh, row.a, row)
                self.meet()

            # the last state, and h for the products of all steps
            a["state"][l][:, own] = states[:, steps, own]
            self.hs[l][: steps + 1, own] = states[0, : steps + 1, own]
            apply_dropout(states[0, 1 : steps + 1, own], masks, l, self.outputs[l][:steps, own])
            self.meet()

    def _output(self, steps: int, scale: float) -> float:
        """Return the summed loss of the own steps; write the gradient of the top layer's output."""
        p, d = self.network.params, self.network.grads
        own = slice(steps * self.k // self.N, steps * (self.k + 1) // self.N)
        x = merge_time_batch(self.outputs[-1][own])
        logits, ys = self.logits[: own.stop - own.start], self.arrays["ys"][own].ravel()
        affine.forward(p["Why"], p["by"], x, logits, logits)
        nll, sum_exp = loss.forward(merge_time_batch(logits), ys)
        dout = loss.backward(merge_time_batch(logits), sum_exp, ys, scale)
        affine.backward(p["Why"], d["Why"], d["by"], x, dout, merge_time_batch(self.dx[own]))
        self.meet()
        return float(np.add.reduce(nll, dtype=np.float64))

    def _backward(self, steps: int, masks: Array | None) -> None:
        """Go back through the layers, from the gradient of the top layer's output."""
        a, p = self.arrays, self.network.params
        dax, dx, dhs = self.dax[:steps], self.dx[:steps, self.own], self.dhs[:steps]
        for l in reversed(range(len(self.rows))):
            # through time
            apply_dropout(dx, masks, l, dhs)
            self._backward_layer(l, dhs)
            dax[:, self.gates] = a["da"][:steps, self.gates]
            self.meet()

            # the gradients of the own gates, and of the own units below
            own_dax = merge_time_batch(dax[:, self.gates])
            self._write(f"{l}.Whh", own_dax @ merge_time_batch(self.hs[l][:steps]).T)
            if l:
                x = merge_time_batch(self.outputs[l - 1][:steps])
                self._write(f"{l}.Wxh", own_dax @ x.T)
                self._write(f"{l}.bh", np.add.reduce(own_dax, axis=1))
                WxhT = self._transposed(p[f"{l}.Wxh"])
                np.matmul(WxhT, merge_time_batch(dax), out=merge_time_batch(dx))
        dWxh, dbh, scratch = (np.empty_like(x) for x in (self.W_plus_b, own_dax[:, 0], own_dax))
        xs, one_hot = a["xs"][:steps].ravel(), self.one_hot[: own_dax.shape[1]]
        affine.backward_ids(dWxh, dbh, xs, own_dax, one_hot, scratch)
        self._write("0.Wxh", dWxh)
        self._write("0.bh", dbh)

    def _backward_layer(self, l: int, dhs: Array) -> None:
        """Write da of the own gates, given the gradient that arrives at h of the own units."""
        steps, da, meet = len(dhs), self.arrays["da"], self.meet
        views, dviews = (
            each._make(view[:steps] for view in each) for each in (self.views[l], self.dviews)
        )
        self.network.cell.local_derivatives(views, dviews)
        self.dstate[:] = 0
        WhhT = self._transposed(self.network.params[f"{l}.Whh"])
        for t in reversed(range(steps)):
            dhnext, dcnext, _, _, _, di, df, do, dg, dc, dtanhc, dh = self.drows[t]
            meet()
            if t < steps - 1:
                dot(WhhT, da[t + 1], dhnext)
            add(dhs[t], dhnext, dh)  # as in the cell
            do *= dh
            multiply(dtanhc, dh, dc)
            dc += dcnext
            di *= dc
            df *= dc
            dg *= dc
            multiply(dc, self.rows[l][t].f, dcnext)

    def _own_rows(self, W: Array) -> Array:
        """Return the rows of the own gates of a parameter, (4 H, n) or (4 H,), as a copy."""
        return np.concatenate(W.reshape(4, self.H, -1)[:, self.own])

    def _transposed(self, W: Array) -> Array:
        """Return the columns of the own units of W (4 H, H) with da's order of rows, transposed."""
        gates = W.reshape(4, self.H, self.H)
        blocks = [gates[:, units, self.own].reshape(-1, self.size) for units in self.units]
        transposed: Array = np.concatenate(blocks).T
        return transposed

    def _write(self, name: str, rows: Array) -> None:
        """Write the gradient of the own gates of a parameter."""
        d = self.grads[name].reshape(4, self.H, -1)[:, self.own]
        d[:] = rows.reshape(d.shape)
