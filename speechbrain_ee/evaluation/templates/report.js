// Criteria on and off, tables sorted. Without this the page reads the same.
document.addEventListener("DOMContentLoaded", () => {
  const all = (query, within = document) => [
    ...within.querySelectorAll(query),
  ];
  document.documentElement.classList.add("js");

  const boxes = all(".keys input");
  const show = (box) => {
    const name = CSS.escape(box.value);
    for (const drawn of all(`svg [data-series="${name}"]`))
      drawn.classList.toggle("off", !box.checked);
    for (const row of all(`tr[data-series="${name}"]`))
      row.classList.toggle("lead", box.checked);
  };
  for (const box of boxes) box.addEventListener("change", () => show(box));
  const choices = {
    all: () => true,
    none: () => false,
    reset: (box) => box.defaultChecked,
  };
  for (const button of all(".keys button"))
    button.addEventListener("click", () => {
      for (const box of boxes) {
        box.checked = choices[button.value](box);
        show(box);
      }
    });

  // Numbers as numbers, with the minus sign that is printed; gaps last.
  const valueOf = (row, place) => {
    const text = row.cells[place].textContent.trim().replace("−", "-");
    const number = place ? parseFloat(text.replace(/,/g, "")) : NaN;
    return { text, number, gap: text === "–" || text === "" };
  };
  const compare = (a, b) =>
    Number.isNaN(a.number) || Number.isNaN(b.number)
      ? a.text.localeCompare(b.text, "en", { numeric: true })
      : a.number - b.number;
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, place) => {
      head.title = "sort";
      head.tabIndex = 0;
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter") head.click();
      });
      head.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending" };
        const order = next[head.ariaSort || "none"] || "none";
        for (const other of heads) other.removeAttribute("aria-sort");
        let rows = original;
        if (order !== "none") {
          head.setAttribute("aria-sort", order);
          const sign = order === "ascending" ? 1 : -1;
          rows = original
            .map((row) => ({ row, ...valueOf(row, place) }))
            .sort((a, b) => a.gap - b.gap || sign * compare(a, b))
            .map((found) => found.row);
        }
        body.append(...rows);
      });
    });
  }
});
