// One film after the other, a verdict of each by a click or a key, undone as far as one likes, kept by the browser, downloaded.
{
  const films = JSON.parse(document.getElementById("films").textContent), at = name => document.getElementById(name);
  const video = at("film"), verdicts = ["success", "failure", "neither"];
  const name = "understudy judge " + {{ key|tojson }};
  const kept = () => { try { return JSON.parse(localStorage.getItem(name)) ?? [] } catch { return [] } };
  let given = kept();  // verdicts of the first films, in the order of the page
  if (!Array.isArray(given) || given.length > films.length || !given.every(one => verdicts.includes(one))) given = [];
  const keep = () => { try { localStorage.setItem(name, JSON.stringify(given)) } catch { /* the download holds it */ } };
  let shown = "";
  const show = () => {
    const done = given.length === films.length;
    at("where").textContent = done ? `All ${films.length} films are judged. Download the verdicts.` : `Film ${given.length + 1} of ${films.length}`;
    at("bar").style.width = `${100 * given.length / films.length}%`;
    for (const verdict of verdicts) at(verdict).disabled = done;
    at("undo").disabled = at("download").disabled = !given.length;
    at("afresh").hidden = !given.length;
    URL.revokeObjectURL(shown);
    shown = "";
    const {task, views} = films[Math.min(given.length, films.length - 1)];
    at("task").textContent = task;
    at("task").hidden = !task;
    at("views").textContent = views.length ? `Cameras, from top to bottom: ${views.join(", ")}` : "";
    if (done) { video.removeAttribute("src"); video.load(); at("download").focus(); return }
    const bytes = Uint8Array.from(atob(films[given.length].data), letter => letter.charCodeAt(0));
    video.src = shown = URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
    video.play().catch(() => { /* a browser may want a click first */ });
  };
  const say = verdict => { if (given.length < films.length) { given.push(verdict); keep(); show() } };
  const undo = () => { if (given.length) { given.pop(); keep(); show() } };
  for (const verdict of verdicts) at(verdict).onclick = () => say(verdict);
  at("undo").onclick = undo;
  at("afresh").onclick = () => { if (confirm("Forget all verdicts of this page?")) { given = []; keep(); show() } };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const act = {y: () => say("success"), n: () => say("failure"), s: () => say("neither"), u: undo, Backspace: undo}[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act() }
  });
  at("download").onclick = () => {
    const labels = given.map((verdict, i) => ({...films[i].place, verdict, judge: "person"}));
    const text = JSON.stringify({kind: "failure-labels", format: {{ format }}, labels}, null, 1);
    const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(new Blob([text], {type: "application/json"})), download: "person.json"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  show();
}
