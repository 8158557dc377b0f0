// Shows the values of the step under the pointer, or with the focus, below the chart.
for (const type of ["mouseover", "focusin"]) {
  document.addEventListener(type, event => {
    const point = event.target.closest && event.target.closest(".point");
    if (point) document.getElementById("values").textContent = point.getAttribute("aria-label");
  });
}
