// Open-loop curves: one small chart for each action dimension of the chosen episode.
{
  const data = JSON.parse(document.getElementById("curve-data").textContent);
  const grid = document.getElementById("curve-grid"), pick = document.getElementById("pick-episode"), order = document.getElementById("pick-order");
  const [width, height, left, right, top, bottom] = [640, 300, 92, 14, 16, 62];
  const svg = (name, values, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const ticks = (low, high, count) => {
    const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(factor => factor * unit).find(size => size >= rough * .999);
    const out = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) out.push(Number((i * step).toPrecision(6)));
    return out;
  };
  const draw = (episode, d) => {
    const name = data.names[d], unit = data.units[d], values = [...episode.recorded[d], ...episode.planned[d]];
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (high - low < 1e-9) [low, high] = [low - .5, high + .5];
    const last = episode.seconds.at(-1) || 1;
    const px = x => left + x / last * (width - left - right), py = y => height - bottom - (y - low) / (high - low) * (height - top - bottom);
    const chart = svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}, recorded and planned, over seconds`});
    for (const y of ticks(low, high, 4)) chart.append(svg("line", {class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y)}), svg("text", {x: left - 8, y: py(y), dy: ".32em", "text-anchor": "end"}, y));
    for (const x of ticks(0, last, 5)) chart.append(svg("text", {x: px(x), y: height - bottom + 26, "text-anchor": "middle"}, x));
    chart.append(svg("line", {class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}));
    chart.append(svg("text", {class: "name", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle"}, "seconds"));
    for (const [series, style] of [[episode.recorded[d], "mean"], [episode.planned[d], "a"]])
      chart.append(svg("polyline", {class: style, points: series.map((y, i) => `${px(episode.seconds[i]).toFixed(1)},${py(y).toFixed(1)}`).join(" ")}));
    const figure = document.createElement("figure"), caption = document.createElement("figcaption"), soft = document.createElement("span");
    caption.append(`${name}, ${unit === "?" ? "unit not stated" : unit === "1" ? "no unit" : unit} `);
    soft.className = "soft";
    soft.textContent = `error ${episode.error[d]}`;
    caption.append(soft);
    figure.append(caption, chart);
    return figure;
  };
  const show = () => {
    const episode = data.episodes[pick.selectedIndex];
    const dims = data.names.map((_, d) => d);
    const span = d => Math.max(...episode.recorded[d]) - Math.min(...episode.recorded[d]) || 1;
    if (order.value === "worst") dims.sort((a, b) => episode.error[b] / span(b) - episode.error[a] / span(a));
    grid.replaceChildren(...dims.map(d => draw(episode, d)));
  };
  for (const episode of data.episodes) pick.append(new Option(`${episode.episode}${episode.task ? ` · ${episode.task.slice(0, 40)}` : ""}`));
  pick.onchange = order.onchange = show;
  show();
}
