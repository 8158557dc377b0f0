// Describes the character under the pointer, or the one chosen with the arrow keys, in a panel.
// The panel is filled only through textContent: the text is never parsed as HTML.
(() => {
  const root = document.currentScript.parentElement;
  const text = root.querySelector("pre");
  const panel = root.querySelector("output");
  const data = JSON.parse(root.querySelector("script").textContent);
  const spans = Array.from(text.children);
  let current = -1;

  function append(parent, tag, content) {
    const element = document.createElement(tag);
    element.textContent = content;
    parent.append(element);
    return element;
  }

  function percent(p) {
    if (p >= 0.1) return (100 * p).toFixed(0) + "%";
    return p >= 0.0001 ? (100 * p).toPrecision(2) + "%" : "<0.01%";
  }

  // The most likely symbols at one symbol's position; the actual one is underlined.
  function showPredictions(symbol) {
    const list = append(panel, "ol", "");
    for (let k = symbol * data.top; k < (symbol + 1) * data.top; k++) {
      const item = append(list, "li", `${data.labels[data.top_ids[k]]} ${percent(data.p[k])}`);
      if (data.top_ids[k] === data.ids[symbol]) item.className = "actual";
      append(item, "meter", "").value = data.p[k];
    }
  }

  function show(i, scroll) {
    if (i < 0 || i >= spans.length) return;
    if (current >= 0) spans[current].classList.remove("current");
    current = i;
    spans[i].classList.add("current");
    if (scroll) spans[i].scrollIntoView({block: "nearest"});

    panel.replaceChildren();
    const character = spans[i].textContent;
    append(panel, "b", data.shown[character] || character);
    const bits = data.bits[i];
    panel.append(`  ${bits.toFixed(2)} bits, probability ${percent(2 ** -bits)}`);
    if (data.activation) panel.append(`, activation ${data.activation[i].toFixed(2)}`);

    // a character or a word of several symbols has a row for each
    const end = data.first.find(first => first > data.first[i]) ?? data.ids.length;
    for (let symbol = data.first[i]; symbol < end; symbol++) showPredictions(symbol);
  }

  // The horizontally closest character on the next line, or with -1 on the previous one. Lines are
  // compared by the middles of their characters: fonts differ in height.
  function onNextLine(direction) {
    const middle = box => (box.top + box.bottom) / 2;
    const from = spans[current].getBoundingClientRect();
    let best = -1, distance = Infinity, line = null;
    for (let i = current + direction; spans[i]; i += direction) {
      const box = spans[i].getBoundingClientRect();
      if ((middle(box) - middle(from)) * direction < 8) continue;
      if (line === null) line = middle(box);
      if (Math.abs(middle(box) - line) > 8) break;
      if (Math.abs(box.left - from.left) < distance) {
        best = i;
        distance = Math.abs(box.left - from.left);
      }
    }
    return best;
  }

  const showTarget = event => show(spans.indexOf(event.target), false);
  text.addEventListener("mouseover", showTarget);
  text.addEventListener("click", showTarget);
  text.addEventListener("focus", () => {
    if (current < 0 && text.matches(":focus-visible")) show(0, true);
  });
  text.addEventListener("keydown", event => {
    const sideways = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    const vertical = {ArrowUp: -1, ArrowDown: 1}[event.key];
    if (!sideways && !vertical || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (sideways || current < 0) show(current + (sideways || 1), true);
    else show(onNextLine(vertical), true);
  });
})();
