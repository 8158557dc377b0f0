// Runs after everything else in a page: measures it, uses it, and reports to the frame around it.
addEventListener("load", () => {
  const all = [...document.querySelectorAll("body *")]
    .filter(e => !/^(SCRIPT|STYLE|TITLE)$/i.test(e.tagName));
  const send = (target, event) => target.dispatchEvent(event);
  const hover = target => send(target, new MouseEvent("mouseover", {bubbles: true}));

  const rgb = color => (color.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = color => rgb(color).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const background = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor, [, , , alpha = 1] = rgb(color);
      if (alpha === 1) return color;
    }
    return "rgb(128, 128, 128)";
  };
  const contrasts = [];
  for (const e of all) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const text = getComputedStyle(e)[e.namespaceURI.endsWith("svg") ? "fill" : "color"];
    const [a, b] = [luminance(text), luminance(background(e))].sort((a, b) => b - a);
    contrasts.push([(a + .05) / (b + .05), e.outerHTML.slice(0, 80)]);
  }

  const boxes = [...document.querySelectorAll("svg text, .legend li, h2, output")]
    .map(e => e.getBoundingClientRect());
  const apart = (a, b) => a.right <= b.left || b.right <= a.left
    || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;

  const wrongValues = [];
  for (const point of document.querySelectorAll(".point")) {
    const values = document.getElementById("values"), label = point.getAttribute("aria-label");
    values.textContent = "";
    hover(point.firstElementChild);
    if (values.textContent !== label) wrongValues.push("hover: " + label);
    values.textContent = "";
    send(point, new FocusEvent("focusin", {bubbles: true}));
    if (values.textContent !== label) wrongValues.push("focus: " + label);
    if (point.tabIndex !== 0) wrongValues.push("tab: " + label);
  }

  const map = document.querySelector(".highlight pre");
  const panel = map.parentElement.querySelector("output");
  const characters = [...map.querySelectorAll("i")];
  let silent = 0;
  for (const character of characters) {
    panel.textContent = "";
    hover(character);
    silent += !/\d bits/.test(panel.textContent);
  }
  hover(characters[0]);
  const moves = ["ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"].map(key => {
    send(map, new KeyboardEvent("keydown", {key}));
    const current = map.querySelectorAll(".current");
    const box = current[0].getBoundingClientRect(), origin = map.getBoundingClientRect();
    const index = characters.indexOf(current[0]);
    return {count: current.length, index, x: box.left - origin.left, y: (box.top + box.bottom) / 2 - origin.top};
  });

  parent.postMessage({
    width: innerWidth,
    scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    beyond: all.map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])
      .filter(([r]) => r.left < -.5 || r.right > document.documentElement.clientWidth + .5)
      .map(([, html]) => html),
    overlaps: boxes.some((a, i) => boxes.some((b, j) => i < j && !apart(a, b))),
    contrast: contrasts.reduce((a, b) => a[0] < b[0] ? a : b),
    dark: luminance(background(document.body)) < .1,
    // the lines that are displayed are the lines of the text
    lines: [...document.querySelectorAll("pre")].every(e => e.innerText === e.textContent),
    points: document.querySelectorAll(".point").length,
    characters: characters.length, silent, moves, wrongValues, errors,
    hacked: typeof hacked, scripts: document.scripts.length,
  }, "*");
});
