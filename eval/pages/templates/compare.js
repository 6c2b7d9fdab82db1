// One initial condition after another: the boxes choose what the figure under them shows; arrow keys go from one to the next.
{
  const {starts, styles, rate} = JSON.parse(document.getElementById("starts").textContent);
  const boxes = [...document.querySelectorAll(".start")], figure = document.querySelector(".chosen");
  const together = figure.querySelector(".together");
  const draw = curves => {
    const last = Math.max(1, ...curves.flat().map(([step]) => step)), x = step => 64 + 562 * step / last, y = value => 214 - 200 * value;
    const rule = value => `<line class="grid" x1="64" x2="626" y1="${y(value)}" y2="${y(value)}"/><text x="56" y="${y(value)}" dy=".32em" text-anchor="end">${value}</text>`;
    const at = (share, anchor) => `<text x="${x(last * share)}" y="234" text-anchor="${anchor}">${Math.round(last * share)}${rate ? ` (${(last * share / rate).toFixed(1)} s)` : ""}</text>`;
    const line = (curve, i) => `<polyline class="${styles[i]}" points="${curve.map(([step, value]) => `${x(step)},${y(value)}`).join(" ")}"/>`;
    return `<svg class="chart" viewBox="0 0 640 262" role="img" aria-label="progress of each policy from this initial condition">${
      [0, 0.5, 1].map(rule).join("")}${at(0, "start")}${at(0.5, "middle")}${at(1, "end")}<text class="name" x="345" y="258" text-anchor="middle">control steps</text><text class="name" x="12" y="114" text-anchor="middle" transform="rotate(-90 12 114)">progress</text>${curves.map(line).join("")}</svg>`;
  };
  const choose = i => {
    for (const [j, box] of boxes.entries()) {
      box.tabIndex = i === j ? 0 : -1;
      box.setAttribute("aria-pressed", String(i === j));
    }
    const one = starts[i];
    const best = one.progress.map(value => value === null ? "–" : value.toFixed(2)).join(" and ");
    figure.querySelector("figcaption").textContent = `Env seed ${one.start}: ${one.words} · best progress ${best}${one.filmed ? "" : " · not filmed"}`;
    figure.querySelector(".curves").innerHTML = draw(one.curves);
    for (const films of figure.querySelectorAll(".films")) {
      films.querySelectorAll("video").forEach(video => video.pause());
      films.hidden = films.dataset.start !== one.id;
    }
    together.hidden = figure.querySelectorAll(".films:not([hidden]) video").length < 2;
  };
  for (const [i, box] of boxes.entries()) {
    box.onclick = () => choose(i);
    box.onkeydown = event => {
      const to = i + ({ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key] ?? 0);
      if (to === i || !boxes[to]) return;
      event.preventDefault();
      choose(to);
      boxes[to].focus();
    };
  }
  together.onclick = () => {
    for (const video of figure.querySelectorAll(".films:not([hidden]) video")) { video.currentTime = 0; video.play() }
  };
  for (const button of document.querySelectorAll(".counts button")) button.onclick = () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const other of button.parentNode.children) other.setAttribute("aria-pressed", String(on && other === button));
    for (const box of boxes) box.classList.toggle("dim", on && box.dataset.key !== button.value);
  };
  const telling = one => 2 * one.filmed + (new Set(one.key).size > 1);
  choose(starts.reduce((best, one, i) => telling(one) > telling(starts[best]) ? i : best, 0));
}
