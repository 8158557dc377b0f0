// The step of lstm.py: i, f, o = sigmoid(a), g = tanh(a), c = f c' + i g, h = o tanh(c).
// Whh is (4 H, H) by rows, ax is (4 H), both in the order i, f, o, g; h and c (H) are overwritten.
const cell = {
  numBlocks: 4,
  numStates: 2,
  step(Whh, ax, [h, c]) {
    const H = h.length, Whh_h = dot(Whh, h);
    const a = (block, k) => ax[block * H + k] + Whh_h[block * H + k];
    for (let k = 0; k < H; k++) {
      const i = sigmoid(a(0, k)), f = sigmoid(a(1, k)), o = sigmoid(a(2, k));
      const g = Math.tanh(a(3, k));
      c[k] = f * c[k] + i * g;
      h[k] = o * Math.tanh(c[k]);
    }
  },
};
