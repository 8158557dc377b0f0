// The step of gru.py: z, r = sigmoid(a), n = tanh(Wxn x + Whn (r h') + bn), h = (1 - z) h' + z n.
// Whh is (3 H, H) by rows, ax is (3 H), both in the order z, r, n; h (H) is overwritten.
const cell = {
  numBlocks: 3,
  numStates: 1,
  step(Whh, ax, [h]) {
    const H = h.length, z = new Float64Array(H), rh = new Float64Array(H);
    const Whzr_h = dot(Whh.subarray(0, 2 * H * H), h);
    for (let k = 0; k < H; k++) {
      z[k] = sigmoid(ax[k] + Whzr_h[k]);
      rh[k] = sigmoid(ax[H + k] + Whzr_h[H + k]) * h[k];
    }
    const Whn_rh = dot(Whh.subarray(2 * H * H), rh);
    for (let k = 0; k < H; k++) {
      const n = Math.tanh(ax[2 * H + k] + Whn_rh[k]);
      h[k] += z[k] * (n - h[k]); // (1 - z) h' + z n
    }
  },
};
