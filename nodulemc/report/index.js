"use strict";
// Sorting and filtering. Without this script the page is a table in the manifest's order.
const body = document.querySelector("tbody");
// Numbers as such, Lung-RADS categories by their order, nothing below everything.
const rank = value => value === "" ? -1 : parseFloat(value) + (value.toString().endsWith("B") ? 0.5 : 0);
const rows = [...body.rows].map(row => ({
  row,
  ...row.dataset,
  text: row.textContent.toLowerCase(),
}));
const inOrder = new Intl.Collator("en", {numeric: true}).compare;

const form = document.querySelector(".filters");
const filter = () => {
  const {text, status, warned, ...given} = Object.fromEntries(new FormData(form));
  const least = Object.entries(given).filter(([, value]) => value !== "");
  let shown = 0;
  for (const entry of rows) {
    const fits = entry.text.includes(text.toLowerCase())
      && least.every(([name, value]) => rank(entry[name.slice("least_".length)]) >= rank(value))
      && (!status || entry.status === status)
      && (!warned || (rank(entry.warnings) > 0) === (warned === "yes"));
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
    rows.sort((a, b) => sign * (isText ? inOrder(a[key], b[key]) : rank(a[key]) - rank(b[key])));
    body.append(...rows.map(entry => entry.row));
    for (const other of document.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
