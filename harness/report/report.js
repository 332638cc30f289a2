"use strict";

// A click on a heading sorts by that column, and a second click reverses the order. Undefined values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.sort === undefined) return cell.dataset.name ?? null;
      return Number(cell.dataset.sort);
    };
    const compare = (a, b) => typeof a === "string" ? a.localeCompare(b) : a === b ? 0 : a - b;
    const rows = [...table.tBodies[0].rows].sort((one, two) => {
      const [a, b] = [key(one), key(two)];
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? -compare(a, b) : compare(a, b);
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  }));
}

// All images of a scan show the same part of the object. (x, y) is the upper left corner of that part and 1 / zoom its
// side, as fractions of the image; the images read them from custom properties of the group.
for (const group of document.querySelectorAll(".linked")) {
  const columns = Number(group.dataset.columns), rows = Number(group.dataset.rows);
  const views = [...group.querySelectorAll(".view")];
  const output = group.querySelector("output");
  const largest = Math.max(2, Math.min(columns, rows) / 6);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  let zoom = 1, x = 0, y = 0, drag = null;

  const show = () => {
    x = within(x, 0, 1 - 1 / zoom);
    y = within(y, 0, 1 - 1 / zoom);
    group.style.setProperty("--zoom", zoom);
    group.style.setProperty("--x", `${-100 * x * zoom}%`);
    group.style.setProperty("--y", `${-100 * y * zoom}%`);
    group.classList.toggle("zoomed", zoom > 1);
    const [top, left] = [Math.round(y * rows), Math.round(x * columns)];
    const [height, width] = [Math.round(rows / zoom), Math.round(columns / zoom)];
    output.textContent = `${zoom.toFixed(1)}×, rows ${top}–${top + height}, columns ${left}–${left + width}`;
  };
  // Zoom about the point (across, down), in fractions of a view.
  const zoomBy = (factor, across = 0.5, down = 0.5) => {
    const next = within(zoom * factor, 1, largest);
    x += across / zoom - across / next;
    y += down / zoom - down / next;
    zoom = next;
    show();
  };
  const move = (right, down) => { x += right / zoom; y += down / zoom; show(); };
  const reset = () => { zoom = 1; x = y = 0; show(); };
  const place = (view, event) => {
    const box = view.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };

  for (const view of views) {
    view.addEventListener("wheel", (event) => {
      // Otherwise the page could not be scrolled past the images.
      const wanted = event.ctrlKey || event.metaKey || views.includes(document.activeElement);
      if (!wanted || (event.deltaY > 0 && zoom === 1)) return;
      event.preventDefault();
      zoomBy(2 ** (-event.deltaY / (event.deltaMode === 1 ? 8 : 240)), ...place(view, event));
    }, { passive: false });
    view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      view.focus({ preventScroll: true });
      drag = place(view, event);
      if (event.isTrusted) view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      const [across, down] = place(view, event);
      group.style.setProperty("--at-x", `${100 * across}%`);
      group.style.setProperty("--at-y", `${100 * down}%`);
      group.classList.toggle("pointing", event.pointerType === "mouse");
      if (drag === null) return;
      move(drag[0] - across, drag[1] - down);
      drag = [across, down];
    });
    for (const name of ["pointerup", "pointercancel"]) view.addEventListener(name, () => { drag = null; });
    view.addEventListener("pointerleave", () => group.classList.remove("pointing"));
    view.addEventListener("dblclick", (event) => zoomBy(event.shiftKey ? 0.5 : 2, ...place(view, event)));
  }
  const actions = { in: () => zoomBy(1.5), out: () => zoomBy(1 / 1.5), reset };
  for (const button of group.querySelectorAll(".tools button")) {
    button.addEventListener("click", actions[button.dataset.action]);
  }
  const keys = {
    "+": actions.in, "=": actions.in, "-": actions.out, "0": reset, Escape: reset,
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1),
  };
  group.addEventListener("keydown", (event) => {
    const action = keys[event.key];
    // At full size the arrow keys scroll the page.
    if (!action || event.ctrlKey || event.metaKey || event.altKey || (event.key.startsWith("Arrow") && zoom === 1)) return;
    event.preventDefault();
    action();
  });
  show();
}
