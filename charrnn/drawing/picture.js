// Shows the map of the character under the pointer, or of the one chosen with the arrow keys, large.
(() => {
  const root = document.currentScript.parentElement;
  const [text, view, panel] = ["pre", ".view", "output"].map(name => root.querySelector(name));
  const characters = [...text.children], figures = [...root.querySelectorAll("figure")];
  let current = 0;

  function show(i) {
    if (!figures[i]) return;
    for (const list of [characters, figures]) {
      list[current].classList.remove("current");
      list[i].classList.add("current");
    }
    current = i;
    const mask = figures[i].firstElementChild.style.getPropertyValue("--mask");
    view.style.setProperty("--mask", mask);
    panel.textContent = figures[i].title;
  }

  for (const [i] of figures.entries()) {
    for (const element of [characters[i], figures[i]]) {
      element.addEventListener("mouseover", () => show(i));
      element.addEventListener("click", () => show(i));
    }
  }
  text.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const last = figures.length - 1;
    const next = {ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: last}[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
  show(0);

  // the picture in its own shape, and with sharp pixels if it has few
  const [, url] = getComputedStyle(root).getPropertyValue("--below").match(/url\("?(.*?)"?\)/) || [];
  if (!url) return;
  const picture = new Image();
  picture.onload = () => {
    root.style.setProperty("--ratio", `${picture.naturalWidth} / ${picture.naturalHeight}`);
    root.classList.toggle("pixels", picture.naturalWidth < 100);
  };
  picture.onerror = () => panel.textContent = "The browser cannot read the picture.";
  picture.src = url;
})();
