// A dataset: one clock for the films of an episode and the cursor on its curves; a click on a curve goes to that time.
{
  const {panels, episodes} = JSON.parse(document.getElementById("recordings").textContent);
  const pick = document.getElementById("episode"), range = document.getElementById("time"), now = document.getElementById("now");
  const go = document.querySelector(".go"), views = [...document.querySelectorAll(".view")], nofilm = document.querySelector(".nofilm");
  const figures = [...document.querySelectorAll(".panel")];
  const [left, right, top, bottom] = [44, 312, 8, 100];
  const unpack = text => new Uint16Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const short = value => value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  const round = (low, high, count) => {
    const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(factor => factor * unit).find(one => one >= rough * 0.999);
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
    return ticks;
  };
  let one, drawn = [], time = 0, playing = false, before = 0, urls = [];

  const draw = () => {
    const last = Math.max(one.seconds * (one.frames - 1) / one.frames, 1e-9);
    const x = second => left + second / last * (right - left);
    drawn = figures.map((figure, i) => {
      const {low, high, styles} = panels[i], svg = figure.querySelector("svg"), y = level => bottom - level / 65534 * (bottom - top);
      const place = value => bottom - (value - low) / (high - low) * (bottom - top);
      const curves = one.curves[i].map(unpack);
      const rules = round(low, high, 3).map(value => `<line class="grid" x1="${left}" x2="${right}" y1="${place(value)}" y2="${place(value)}"/><text x="${left - 5}" y="${place(value)}" dy=".32em" text-anchor="end">${short(value)}</text>`);
      const seconds = round(0, last, 5).map(second => `<text x="${x(second)}" y="${bottom + 15}" text-anchor="middle">${short(second)}</text>`);
      const lines = curves.map((levels, j) => {
        let path = "", pen = "M";
        levels.forEach((level, k) => {
          if (level === 65535) { pen = "M"; return }
          path += `${pen}${x(last * k / Math.max(1, levels.length - 1)).toFixed(1)} ${y(level).toFixed(1)}`;
          pen = "L";
        });
        return `<path class="${styles[j]}" d="${path}"/>`;
      });
      svg.innerHTML = rules.join("") + seconds.join("") + `<line class="axis" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>` +
        `<text class="name" x="${right}" y="${bottom + 28}" text-anchor="end">time, s</text>` + lines.reverse().join("") + `<line class="cursor" y1="${top}" y2="${bottom}"/>`;
      svg.onpointerdown = svg.onpointermove = event => {
        if (event.type === "pointermove" && !event.buttons) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
        seek((at - left) / (right - left) * last);
      };
      return {curves, low, high, cursor: svg.querySelector(".cursor"), output: figure.querySelector("output"), x, last};
    });
  };
  const show = () => {
    range.value = time;
    now.textContent = `${time.toFixed(1)} / ${one.seconds.toFixed(1)} s`;
    for (const {curves, low, high, cursor, output, x, last} of drawn) {
      const at = Math.min(time, last);
      cursor.setAttribute("x1", x(at));
      cursor.setAttribute("x2", x(at));
      output.textContent = curves.map(levels => {
        const level = levels[Math.round(at / last * (levels.length - 1))];
        return level === 65535 ? "not finite" : short(Number((low + level / 65534 * (high - low)).toPrecision(3)));
      }).join(" · ");
    }
  };
  const filmed = () => views.map(view => view.querySelector("video")).filter(video => video.src);
  const stop = () => {
    playing = false;
    go.setAttribute("aria-pressed", "false");
    filmed().forEach(video => video.pause());
  };
  const seek = to => {
    time = Math.min(one.seconds, Math.max(0, to));
    for (const video of filmed()) video.currentTime = Math.min(time, Math.max(0, (video.duration || one.seconds) - 1e-3));
    show();
  };
  const tick = moment => {
    if (!playing) return;
    const lead = filmed().find(video => !video.ended && video.readyState > 1);
    time = lead ? lead.currentTime : Math.min(one.seconds, time + (moment - before) / 1000);
    before = moment;
    show();
    if (time >= one.seconds - 1e-3 || filmed().some(video => video.ended)) { time = one.seconds; show(); return stop() }
    requestAnimationFrame(tick);
  };
  const play = () => {
    if (playing) return stop();
    if (time >= one.seconds - 0.05) seek(0);
    playing = true;
    before = performance.now();
    go.setAttribute("aria-pressed", "true");
    filmed().forEach(video => video.play());
    requestAnimationFrame(tick);
  };
  const choose = i => {
    stop();
    pick.selectedIndex = i;
    one = episodes[i];
    urls.forEach(URL.revokeObjectURL);
    urls = [];
    let any = false;
    for (const view of views) {
      const video = view.querySelector("video"), film = document.getElementById(`film-${i}-${view.dataset.camera}`);
      video.removeAttribute("src");
      view.hidden = !film;
      if (!film) { video.load(); continue }
      const bytes = Uint8Array.from(atob(film.textContent), letter => letter.charCodeAt(0));
      urls.push(URL.createObjectURL(new Blob([bytes], {type: "video/mp4"})));
      video.src = urls.at(-1);
      video.onloadedmetadata = () => { if (!playing) video.currentTime = Math.min(time, video.duration) };
      any = true;
    }
    nofilm.hidden = any;
    range.max = one.seconds;
    draw();
    seek(0);
    for (const edge of document.querySelectorAll(".edge")) edge.setAttribute("aria-pressed", String(Number(edge.value) === i));
  };
  pick.onchange = () => choose(pick.selectedIndex);
  range.oninput = () => { stop(); seek(Number(range.value)) };
  go.onclick = play;
  for (const view of views) view.querySelector("video").onclick = play;
  for (const button of document.querySelectorAll(".step")) button.onclick = () =>
    choose((pick.selectedIndex + Number(button.value) + episodes.length) % episodes.length);
  for (const edge of document.querySelectorAll(".edge")) edge.onclick = () => {
    choose(Number(edge.value));
    document.getElementById("player").scrollIntoView({block: "start"});
  };
  choose(0);
}
