// A network that reads one symbol at a time, as Stepper in network.py does. `cell` is defined in
// the file of the cell. Weights are float16 numbers, arithmetic is in float64.

// W x, where W is (M, N) by rows and x is (N)
function dot(W, x) {
  const N = x.length, out = new Float64Array(W.length / N);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let j = 0; j < N; j++) sum += W[i * N + j] * x[j];
    out[i] = sum;
  }
  return out;
}

const add = (x, y) => x.map((value, k) => value + y[k]);
const sigmoid = a => 1 / (1 + Math.exp(-a)); // an infinite exp gives 0, as it should

// Decode little-endian numbers of IEEE 754 binary16.
function decodeHalf(base64) {
  const bytes = atob(base64), numbers = new Float32Array(bytes.length / 2);
  for (let k = 0; k < numbers.length; k++) {
    const half = bytes.charCodeAt(2 * k) | bytes.charCodeAt(2 * k + 1) << 8;
    const exponent = half >> 10 & 31, fraction = half & 1023;
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    numbers[k] = half >> 15 ? -size : size;
  }
  return numbers;
}

class Network {
  // The weights are in the order of parameter_shapes: 0.Wxh 0.Whh 0.bh 1.Wxh ... Why by.
  constructor(cell, V, H, L, weights) {
    let end = 0;
    const take = n => weights.subarray(end, end += n);
    const GH = cell.numBlocks * H;
    this.cell = cell;
    this.layers = [];
    for (let l = 0; l < L; l++) {
      const state = Array.from({length: cell.numStates}, () => new Float64Array(H));
      this.layers.push({Wxh: take(GH * (l ? H : V)), Whh: take(GH * H), bh: take(GH), state});
    }
    this.Why = take(V * H);
    this.by = take(V);
  }

  reset() {
    for (const {state} of this.layers) for (const row of state) row.fill(0);
  }

  // Read an id; return the logits (V).
  step(id) {
    let x = null;
    for (const {Wxh, Whh, bh, state} of this.layers) {
      // below the first layer is a one-hot column: it picks a column of Wxh
      const V = this.by.length;
      const Wx = x ? dot(Wxh, x) : Float64Array.from(bh, (_, k) => Wxh[k * V + id]);
      this.cell.step(Whh, add(Wx, bh), state);
      x = state[0];
    }
    return add(dot(this.Why, x), this.by);
  }
}
