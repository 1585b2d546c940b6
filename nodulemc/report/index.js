"use strict";
// Sorting and filtering. Without this script the page is a table in the manifest's order.
const body = document.querySelector("tbody");
const rows = [...body.rows].map(row => ({
  row,
  ...row.dataset,
  probability: row.dataset.probability === "" ? -1 : Number(row.dataset.probability),
  nodules: Number(row.dataset.nodules),
  warnings: Number(row.dataset.warnings),
  text: row.textContent.toLowerCase(),
}));
const inOrder = new Intl.Collator("en", {numeric: true}).compare;

const form = document.querySelector(".filters");
const filter = () => {
  const {text, least, status, warned} = Object.fromEntries(new FormData(form));
  let shown = 0;
  for (const entry of rows) {
    const fits = entry.text.includes(text.toLowerCase())
      && (least === "" || entry.probability >= Number(least))
      && (!status || entry.status === status)
      && (!warned || (entry.warnings > 0) === (warned === "yes"));
    entry.row.hidden = !fits;
    shown += fits;
  }
  form.querySelector("[role=status]").textContent = `${shown} of ${rows.length} scans shown`;
};
for (const kind of ["input", "change"]) form.addEventListener(kind, filter);  // not every browser sends both
form.addEventListener("submit", event => event.preventDefault());
form.hidden = false;
filter();

for (const head of document.querySelectorAll("[data-key]")) {
  const key = head.dataset.key;
  const isText = key === "scan" || key === "status";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    // Names from A on, numbers from the highest on; a second time the other way round.
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : isText;
    const sign = up ? 1 : -1;
    rows.sort((a, b) => sign * (isText ? inOrder(a[key], b[key]) : a[key] - b[key]));
    body.append(...rows.map(entry => entry.row));
    for (const other of document.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
