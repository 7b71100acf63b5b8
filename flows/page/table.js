"use strict";
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table");
    const body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const place = Number(head.dataset.sort);
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[place].dataset.v ?? "";
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
}

const only = document.querySelector(".only");
if (only) {
  only.hidden = false;
  only.addEventListener("click", (event) => {
    const chosen = event.target.dataset.only;
    if (chosen === undefined) return;
    for (const button of only.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button === event.target));
    }
    const matrix = document.querySelector("table.matrix");
    for (const cell of matrix.querySelectorAll("[data-band]")) cell.hidden = chosen !== "" && cell.dataset.band !== chosen;
    for (const row of matrix.tBodies[0].rows) row.hidden = !row.querySelector("td.cell:not([hidden])");
  });
  if (only.dataset.first) only.querySelector(`[data-only="${only.dataset.first}"]`).click();
}
