// Charts: the values under the pointer stand in the legend.
for (const svg of document.querySelectorAll("svg.chart[data-x]")) {
  const [x, y] = [svg.dataset.x, svg.dataset.y].map(text => text.split(" ").map(Number));
  const value = (at, [low, high, from, to]) => low + (at - from) / (to - from) * (high - low);
  const keys = svg.nextElementSibling?.children ?? [];
  const byKey = new Map();
  for (const line of svg.querySelectorAll("polyline[data-key]:not(.thin)")) if (keys[line.dataset.key])
    byKey.set(line.dataset.key, [...byKey.get(line.dataset.key) ?? [], ...line.points]);
  const lines = [...byKey].map(([key, points]) => {
    const output = document.createElement("output");
    keys[key].append(output);
    return [points, output];
  });
  const cursor = document.createElementNS(svg.namespaceURI, "line"), place = document.createElementNS(svg.namespaceURI, "text");
  cursor.setAttribute("class", "cursor");
  place.setAttribute("y", y[3] + 12);
  svg.onpointermove = event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    if (!lines.length || at < x[2] || at > x[3]) return svg.onpointerleave();
    for (const [name, where] of Object.entries({x1: at, x2: at, y1: y[2], y2: y[3]})) cursor.setAttribute(name, where);
    const right = at > (x[2] + x[3]) / 2;
    place.setAttribute("x", at + (right ? -6 : 6));
    place.setAttribute("text-anchor", right ? "end" : "start");
    const there = value(at, x), rate = Number(svg.dataset.rate);
    place.textContent = x[1] - x[0] < 20 && !rate ? there.toFixed(2) : rate ? `${Math.round(there)}, ${(there / rate).toFixed(1)} s` : Math.round(there);
    svg.append(cursor, place);
    for (const [points, output] of lines) {
      const near = points.reduce((best, one) => Math.abs(one.x - at) < Math.abs(best.x - at) ? one : best);
      const found = value(near.y, y);
      output.textContent = svg.dataset.log === "1" ? (10 ** found).toPrecision(2) : found.toFixed(2);
    }
  };
  svg.onpointerleave = () => {
    cursor.remove();
    place.remove();
    for (const [, output] of lines) output.textContent = "";
  };
}
