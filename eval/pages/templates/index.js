// Rows that contain a text; labels that a person gives, kept by the browser and downloaded; success over initial conditions.
for (const sift of document.querySelectorAll(".sift")) sift.oninput = () => {
  const words = sift.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.getElementById(sift.dataset.table).tBodies[0].rows)
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
};
{
  const inputs = [...document.querySelectorAll("input.label")], button = document.getElementById("download");
  const place = input => {
    const record = input.closest("details").dataset;
    return {record: record.record, name: record.name, initial_conditions: input.dataset.set, env_seed: Number(input.dataset.seed)};
  };
  const key = input => { const at = place(input); return `understudy label ${at.record} ${at.initial_conditions} ${at.env_seed}` };
  const kept = { // a browser may refuse to remember
    get: input => { try { return localStorage.getItem(key(input)) } catch { return null } },
    set: input => { try { localStorage.setItem(key(input), input.value) } catch { /* the download holds it */ } },
  };
  const written = () => inputs.filter(input => input.value.trim());
  const tell = () => {
    const given = written();
    document.getElementById("labelled").textContent = `${given.length} of ${inputs.length} failures labelled`;
    document.getElementById("words").replaceChildren(...[...new Set(given.map(input => input.value.trim()))].sort().map(word => new Option(word)));
    button.disabled = !given.length;
  };
  for (const [i, input] of inputs.entries()) {
    if (!input.value) input.value = kept.get(input) ?? "";
    input.onchange = () => { kept.set(input); tell() };
    input.onkeydown = event => { if (event.key === "Enter") inputs[i + 1]?.focus() };
  }
  if (button) {
    tell();
    button.onclick = () => {
      const labels = written().map(input => ({...place(input), label: input.value.trim()}));
      const text = JSON.stringify({kind: "failure-labels", format: 1, labels}, null, 1);
      const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(new Blob([text], {type: "application/json"})), download: "labels.json"});
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };
  }
}
for (const figure of document.querySelectorAll("figure.place")) {
  const {names, values, won, seeds} = JSON.parse(figure.querySelector("script").textContent);
  const [across, up] = figure.querySelectorAll("select");
  const span = column => {
    const all = values.map(row => row[column]), low = Math.min(...all), high = Math.max(...all), room = (high - low) / 20 || 1;
    return [low - room, high + room];
  };
  const nice = value => String(Number(value.toPrecision(3)));
  const node = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const draw = () => {
    const [i, j] = [across.value, up.value].map(Number), [left, right] = span(i), [low, high] = span(j);
    const x = value => 70 + 540 * (value - left) / (right - left), y = value => 400 - 384 * (value - low) / (high - low);
    const svg = node("svg", {class: "chart", viewBox: "0 0 640 460", role: "img", "aria-label": `success over ${names[i]} and ${names[j]}`});
    for (const share of [0, .5, 1]) {
      const a = left + share * (right - left), b = low + share * (high - low);
      svg.append(node("line", {class: "grid", x1: x(a), x2: x(a), y1: 16, y2: 400}), node("line", {class: "grid", x1: 70, x2: 610, y1: y(b), y2: y(b)}),
        node("text", {x: x(a), y: 420, "text-anchor": ["start", "middle", "end"][2 * share]}, nice(a)), node("text", {x: 62, y: y(b), dy: ".32em", "text-anchor": "end"}, nice(b)));
    }
    svg.append(node("text", {class: "name", x: 340, y: 450, "text-anchor": "middle"}, names[i]), node("text", {class: "name", x: 16, y: 208, "text-anchor": "middle", transform: "rotate(-90 16 208)"}, names[j]));
    for (const k of values.keys()) {
      const dot = node("circle", {cx: x(values[k][i]), cy: y(values[k][j]), r: won[k] ? 6 : 7, class: won[k] ? "success" : "failure hollow"});
      dot.append(node("title", {}, `env seed ${seeds[k]}: ${won[k] ? "success" : "failure"}, ${names[i]} ${nice(values[k][i])}, ${names[j]} ${nice(values[k][j])}`));
      svg.append(dot);
    }
    figure.querySelector(".drawn").replaceChildren(svg);
  };
  for (const [place, select] of [across, up].entries()) {
    select.append(...names.map((name, column) => new Option(name, column)));
    select.value = Math.min(place, names.length - 1);
    select.onchange = draw;
  }
  draw();
}
