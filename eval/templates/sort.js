// A click on a table's head sorts its rows, numbers by value.
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, up = head.dataset.sorted !== "up";
  const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim() };
  const sign = up ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => sign * key(a).localeCompare(key(b), undefined, {numeric: true}));
  for (const other of head.parentNode.cells) delete other.dataset.sorted;
  head.dataset.sorted = up ? "up" : "down";
  body.append(...rows);
};
