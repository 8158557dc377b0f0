// Runs in a page of charrnn export: computes logits, writes texts, and reports to the frame.
addEventListener("load", async () => {
  const byId = id => document.getElementById(id);
  const model = JSON.parse(byId("model").textContent), {codes, hidden_size, num_layers} = model;
  const weights = decodeHalf(model.weights);
  const network = new Network(cell, codes.length, hidden_size, num_layers, weights);
  const logits = codes.map((_, id) => [...network.step(id)]);

  async function write(prime, temp, seed) {
    byId("prime").value = prime;
    byId("temp").value = temp;
    byId("seed").value = seed;
    byId("write").click();
    while (byId("more").textContent !== "More") await new Promise(done => setTimeout(done, 50));
    const colored = [...byId("text").querySelectorAll("i")];
    return {
      text: colored.map(e => e.textContent).join(""),
      prime: byId("text").querySelector("b")?.textContent,
      status: byId("status").textContent,
      classes: colored.map(e => e.className),
      bits: colored.map(e => parseFloat(e.title)),
    };
  }

  const texts = [];
  for (const settings of PLAYS) texts.push(await write(...settings));
  byId("more").click();
  while (byId("more").textContent !== "More") await new Promise(done => setTimeout(done, 50));
  parent.postMessage({
    title: document.title, logits, texts, errors,
    halves: [...decodeHalf(HALVES)],
    continued: byId("text").querySelectorAll("i").length,
    beyond: [...document.querySelectorAll("body *")]
      .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + .5)
      .map(e => e.outerHTML.slice(0, 80)),
    hacked: typeof hacked, scripts: document.scripts.length,
  }, "*");
});
