// The list of questions: only the rows in view exist.
"use strict";

(() => {
  const HEIGHT = 58, BEYOND = 6;
  const list = document.getElementById("list"), rows = document.getElementById("rows");
  let shown = {groups: new Int32Array(0), matches: new Uint8Array(0)}, current = -1, drawn = new Map();

  const SIGNS = ["✗", "✓", "·"];

  // Text and nothing else: what models wrote never becomes markup. Controls and changes of direction are shown as �.
  swirl.text = (words) =>
    String(words).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  swirl.make = (tag, className, words, children = []) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (words !== undefined && words !== null) element.textContent = swirl.text(words);
    element.append(...children.filter(Boolean));
    return element;
  };
  swirl.sign = (outcome) => SIGNS[outcome];

  swirl.list = {
    show(selected) {
      shown = selected;
      rows.style.height = `${shown.groups.length * HEIGHT}px`;
      for (const element of drawn.values()) element.remove();
      drawn = new Map();
      list.scrollTop = 0;
      draw();
    },
    // The place of a question in the list, or -1.
    place: (group) => shown.groups.indexOf(group),
    at: (place) => shown.groups[place],
    size: () => shown.groups.length,
    matches: (row) => shown.matches[row] === 1,
    mark(group) {
      current = group;
      const place = shown.groups.indexOf(group);
      if (place >= 0) {
        const top = place * HEIGHT, height = list.clientHeight;
        if (top < list.scrollTop || top + HEIGHT > list.scrollTop + height) list.scrollTop = Math.max(0, top - height / 3);
      }
      for (const element of drawn.values()) element.setAttribute("aria-selected", String(element.group === group));
      draw();
    },
    onPick: null,
  };

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - BEYOND);
    const last = Math.min(shown.groups.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + BEYOND);
    for (const [place, element] of drawn) {
      if (place < first || place >= last) {
        element.remove();
        drawn.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (!drawn.has(place)) drawn.set(place, rows.appendChild(row(place)));
    }
    const marked = [...drawn.values()].find((element) => element.group === current);
    if (marked) list.setAttribute("aria-activedescendant", marked.id); else list.removeAttribute("aria-activedescendant");
  }

  function row(place) {
    const group = shown.groups[place], {questions, benchmarks} = swirl, hops = questions.hops[group];
    const where = `${benchmarks[questions.benchmark[group]]}${hops ? ` · ${hops} hop${hops > 1 ? "s" : ""}` : ""}`;
    const element = swirl.make("div", "row", null, [
      swirl.make("span", "asked", questions.text[group]),
      swirl.make("span", "marks", null, marks(group)),
      swirl.make("span", "where", where),
    ]);
    element.id = `row-${place}`;
    element.group = group;
    element.style.transform = `translateY(${place * HEIGHT}px)`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", String(group === current));
    element.setAttribute("aria-setsize", String(shown.groups.length));
    element.setAttribute("aria-posinset", String(place + 1));
    element.addEventListener("click", () => swirl.list.onPick(group));
    return element;
  }

  // Each model's name with a sign for each of its trajectories; those that the filters leave out are grey.
  function marks(group) {
    const bySource = new Map();
    for (const row of swirl.rows(group)) {
      const source = swirl.source[row];
      if (!bySource.has(source)) bySource.set(source, []);
      bySource.get(source).push(row);
    }
    return [...bySource].flatMap(([source, its]) => [
      swirl.make("span", its.some(swirl.list.matches) ? "mark" : "mark pale", `${swirl.sources[source].label} `,
        its.map((row) => swirl.make("b", swirl.OUTCOMES[swirl.columns.outcome[row]], SIGNS[swirl.columns.outcome[row]]))),
      " ",
    ]);
  }

  list.addEventListener("scroll", draw, {passive: true});
  new ResizeObserver(draw).observe(list);
})();
