// Sampling ids from a network, as sampling.py does.

// A generator of uniform numbers in [0, 1), the same for the same seed: mulberry32 by T. Ettinger.
function uniformNumbers(seed) {
  return () => {
    seed = seed + 0x6d2b79f5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, seed | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

// Temperature divides the logits; 0 takes the largest, the lowest id if there are several.
function sampleLogits(logits, uniform, temp) {
  const max = logits.reduce((a, b) => Math.max(a, b));
  if (temp === 0) return logits.indexOf(max);
  let sum = 0;
  const sums = logits.map(logit => sum += Math.exp((logit - max) / temp));
  return sums.findIndex(part => part > uniform * sum);
}

// -log2 p of an id, at temperature 1
function surprisal(logits, id) {
  const max = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0);
  return (max + Math.log(sum) - logits[id]) / Math.LN2;
}

// Yield [id, surprisal] without end, after the prime's ids are read, with a null for each of them.
// `temp` returns the temperature, which may change while a text is written.
function* generateIds(network, prime, unknownId, uniform, temp) {
  network.reset();
  for (const id of prime.slice(0, -1)) {
    network.step(id);
    yield null;
  }
  let id = prime[prime.length - 1];
  while (true) {
    const logits = network.step(id), allowed = logits.slice();
    if (unknownId !== null) allowed[unknownId] = -Infinity;
    id = sampleLogits(allowed, uniform(), temp());
    yield [id, surprisal(logits, id)];
  }
}
