// Tables: a click on a header sorts, a second one turns the order round; what has no value comes last.
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  head.scope = "col";
  head.ariaSort ??= "none";
  button.onclick = () => {
    const column = head.cellIndex, body = head.closest("table").tBodies[0], up = head.ariaSort !== "ascending";
    const key = row => {
      const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      return text === "" || text === "–" ? null : isNaN(text) ? text : Number(text);
    };
    const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    const rows = [...body.rows].map(row => [key(row), row]).sort(([a], [b]) =>
      a === null || b === null ? (a === null) - (b === null) : up ? order(a, b) : order(b, a));
    for (const other of head.parentNode.cells) other.ariaSort = "none";
    head.ariaSort = up ? "ascending" : "descending";
    body.append(...rows.map(([, row]) => row));
  };
}
