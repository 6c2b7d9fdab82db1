// Films: stopped at their moment, with the curve of progress as the slider. Browsers hold a few dozen players, so that a
// film is opened when it comes near the screen, and closed where it was when it has gone.
function prepare(figure) {
  const [video, track, head, output, play] = ["video", ".track", ".head", "output", ".play"].map(s => figure.querySelector(s));
  const steps = Number(figure.dataset.steps), moment = Number(figure.dataset.moment), frames = steps + 1;
  const bytes = Uint8Array.from(atob(video.src.split(",")[1]), letter => letter.charCodeAt(0));
  const film = URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
  let at = moment;
  video.controls = false;
  video.removeAttribute("src");
  video.preload = "auto";
  const step = () => Math.min(steps, Math.max(0, Math.floor(video.currentTime / (video.duration || 1) * frames + 1e-6)));
  const seek = to => { video.currentTime = (Math.min(steps, Math.max(0, to)) + 0.5) / frames * video.duration };
  const show = () => {
    const now = step();
    head.style.left = `${100 * now / steps}%`;
    output.textContent = `${now} / ${steps}`;
    track.setAttribute("aria-valuenow", now);
    track.setAttribute("aria-valuetext", `step ${now} of ${steps}`);
    if (!video.paused) requestAnimationFrame(show);
  };
  const toggle = () => { if (video.ended) video.currentTime = 0; video.paused ? video.play() : video.pause() };
  const drag = event => {
    const box = track.getBoundingClientRect();
    video.pause();
    seek(Math.round((event.clientX - box.left) / box.width * steps));
  };
  video.addEventListener("loadedmetadata", () => seek(at));
  for (const name of ["play", "pause", "seeked", "ended"]) video.addEventListener(name, () => {
    figure.classList.toggle("playing", !video.paused && !video.ended);
    play.setAttribute("aria-pressed", String(!video.paused && !video.ended));
    show();
  });
  play.onclick = video.onclick = toggle;
  figure.querySelector(".size").onclick = () => figure.classList.toggle("large");
  for (const jump of figure.querySelectorAll(".jump")) jump.onclick = () => { video.pause(); seek(Number(jump.value)) };
  track.onpointerdown = event => { track.setPointerCapture(event.pointerId); drag(event) };
  track.onpointermove = event => { if (event.buttons) drag(event) };
  track.onkeydown = event => {
    const by = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -steps, End: steps}[event.key];
    if (by) { video.pause(); seek(step() + by) } else if (event.key === " ") toggle(); else return;
    event.preventDefault();
  };
  return near => {
    if (near && !video.src) {
      video.src = film;
    } else if (!near && video.src) {
      if (video.readyState) at = step();
      video.removeAttribute("src");
      video.load();
    }
  };
}
const prepared = new Map([...document.querySelectorAll(".film")].map(figure => [figure, prepare(figure)]));
const watcher = new IntersectionObserver(seen => {
  for (const one of seen) prepared.get(one.target)(one.isIntersecting);
}, {rootMargin: "600px"});
for (const figure of prepared.keys()) watcher.observe(figure);

for (const button of document.querySelectorAll(".command button")) button.onclick = async () => {
  const code = button.parentNode.querySelector("pre");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
  }
};
