// The step of vanilla.py: h = tanh(Wxh x + Whh h' + bh).
// Whh is (H, H) by rows, ax = Wxh x + bh is (H); h (H) is overwritten.
const cell = {
  numBlocks: 1,
  numStates: 1,
  step(Whh, ax, [h]) {
    const Whh_h = dot(Whh, h);
    for (let k = 0; k < h.length; k++) h[k] = Math.tanh(ax[k] + Whh_h[k]);
  },
};
