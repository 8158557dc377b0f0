// Writes text with the model of the page. Text enters the page only through textContent.
(() => {
  const PER_TICK = 5, TICK_MS = 20; // the most characters, and the time between
  const byId = id => document.getElementById(id);
  const [prime, temp, seed, text] = ["prime", "temp", "seed", "text"].map(byId);

  const model = JSON.parse(byId("model").textContent);
  const {codes, hidden_size, num_layers, start_id, separator_id, unknown_id} = model;
  const weights = decodeHalf(model.weights);
  const network = new Network(cell, codes.length, hidden_size, num_layers, weights);
  const idOfCode = new Map(codes.map((code, id) => [code, id]));
  let ids, composer, uniform, remaining, written, bits, timer, skipped;

  // Return the ids of a text; a character that the model does not know is skipped.
  function encode(string) {
    const idsOf = list => list.map(code => idOfCode.get(code) ?? unknown_id);
    const characters = toCodes(string, model.unit).map(idsOf);
    const known = characters.filter(list => !list.includes(null));
    skipped = characters.length - known.length;
    return known.flat();
  }

  // Control characters are shown as escapes, except joiners, which some scripts need.
  function escapeControl(string) {
    return string.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, c => {
      if ("\n\t\u200c\u200d".includes(c)) return c;
      const hex = c.codePointAt(0).toString(16);
      const [letter, width] = [["x", 2], ["u", 4], ["U", 8]].find(kind => hex.length <= kind[1]);
      return `\\${letter}${hex.padStart(width, "0")}`;
    });
  }

  // Add a piece of text; that of a prime has no surprisal.
  function append(string, surprisal) {
    if (!string) return;
    const element = document.createElement(surprisal === null ? "b" : "i");
    element.textContent = escapeControl(string);
    if (surprisal !== null) {
      element.className = `b${Math.max(0, Math.min(9, Math.floor(surprisal)))}`;
      if (element.textContent !== string) element.classList.add("escaped");
      element.title = `${surprisal.toFixed(2)} bits`;
      written += 1;
      bits += surprisal;
      remaining -= 1;
    }
    text.append(element);
  }

  // Begin a text, or a document: with the prime, from the zero state.
  function begin() {
    const primeIds = encode(prime.value);
    append(prime.value, null);
    composer = new Composer(model.unit);
    const first = primeIds.length ? primeIds : [start_id];
    ids = generateIds(network, first, unknown_id, uniform, () => Number(temp.value));
  }

  // Return whether a symbol was written: the prime is read first.
  function writeSymbol() {
    if (!ids) begin();
    const next = ids.next().value;
    if (!next) return false;
    const [id, surprisal] = next;
    for (const piece of composer.feed(codes[id], surprisal)) append(...piece);

    // a document ends; at temperature 0 the next would be the same
    if (id === separator_id) {
      ids = null;
      if (codes[id] === END_OF_DOCUMENT) append("\n\n", null);
      if (Number(temp.value) === 0) remaining = 0;
    }
    return true;
  }

  function tick() {
    const end = performance.now() + TICK_MS;
    const atBottom = text.scrollTop + text.clientHeight > text.scrollHeight - 40;
    let n = 0;
    while (n < PER_TICK && remaining > 0 && performance.now() < end) if (writeSymbol()) n++;
    if (atBottom) text.scrollTop = text.scrollHeight;
    if (remaining > 0) timer = setTimeout(tick, TICK_MS);
    else stop();
  }

  function run() {
    clearTimeout(timer);
    remaining = model.length;
    byId("more").textContent = "Stop";
    byId("status").textContent = "writing ...";
    tick();
  }

  function stop() {
    clearTimeout(timer);
    remaining = 0;
    byId("more").textContent = "More";
    const mean = `${(bits / Math.max(1, written)).toFixed(2)} bits per character`;
    const unknown = skipped ? `; unknown characters skipped in the prime: ${skipped}` : "";
    byId("status").textContent = `${written.toLocaleString("en")} characters, ${mean}${unknown}`;
  }

  function write() {
    text.replaceChildren();
    uniform = uniformNumbers(Number(seed.value) >>> 0);
    written = bits = 0;
    ids = null;
    run();
  }

  const showTemp = () => byId("shown-temp").textContent = Number(temp.value).toFixed(2);
  temp.addEventListener("input", showTemp);
  byId("more").addEventListener("click", () => remaining > 0 ? stop() : run());
  byId("new-seed").addEventListener("click", () => {
    seed.value = Math.floor(Math.random() * 10000);
    write();
  });
  byId("controls").addEventListener("submit", event => {
    event.preventDefault();
    write();
  });
  prime.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
  });
  showTemp();
  write();
})();
