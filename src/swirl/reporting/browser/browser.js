// The page: its state is the address's hash, and every change of it is shown from there.
"use strict";

(() => {
  const element = (id) => document.getElementById(id);
  const narrow = window.matchMedia("(max-width: 859px)");
  const help = element("help"), list = element("list");
  let selected = null, filtered = null, focus = -1, shown = null;

  swirl.state = () => {
    const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state.view ??= narrow.matches ? "one" : "all";
    return state;
  };
  swirl.href = (state) => {
    const given = Object.entries(state).filter(([name, value]) => value && !(name === "view" && value === (narrow.matches ? "one" : "all")));
    return `#${new URLSearchParams(given)}`;
  };
  // Goes to another state at once; with `replace` the step back leads to what was before the last one.
  const go = (changes, replace = false) => {
    const href = swirl.href({...swirl.state(), ...changes});
    if (replace) location.replace(href); else location.hash = href;
    show();
  };

  swirl.start = () => {
    for (const [name, choices] of Object.entries(swirl.choices())) {
      const select = element(`f-${name}`);
      select.append(new Option({compare: "any", trait: "anything"}[name] ?? "all", ""));
      for (const [value, words] of choices) select.append(new Option(swirl.text(words), value));
      select.closest("label").hidden = !choices.length;
    }
    if (swirl.report) {
      element("report").href = swirl.report;
      element("report").hidden = false;
    }
    if (swirl.results) swirl.provenance(element("provenance"));
    element("filters-fold").open = !narrow.matches;
    show();
    document.documentElement.dataset.ready = "true";
  };

  function show() {
    if (location.hash === shown) return;
    shown = location.hash;
    const state = swirl.state(), filters = Object.fromEntries(swirl.filterNames.map((name) => [name, state[name] ?? ""]));
    const key = JSON.stringify(filters);
    if (key !== filtered) {
      filtered = key;
      selected = swirl.select(filters);
      swirl.list.show(selected);
      for (const [name, value] of Object.entries(filters)) if (element(`f-${name}`).value !== value) element(`f-${name}`).value = value;
      const active = Object.values(filters).filter(Boolean).length;
      element("active").textContent = active ? `(${active} on)` : "";
      element("count").textContent = count();
    }
    const row = state.t ? swirl.find(state.t) : -1;
    document.body.classList.toggle("opened", row >= 0);
    focus = row;
    if (row < 0) {
      swirl.list.mark(-1);
      swirl.empty(state.t ? `There is no trajectory ${state.t} here.` : "Choose a question, or press j. Or look at:", state);
      document.title = "SWiRL: trajectories";
      return;
    }
    const group = swirl.columns.question[row];
    swirl.list.mark(group);
    document.title = swirl.text(`${swirl.id(row)}, ${swirl.name(row)}`);
    return swirl.detail(row, state.view === "all" ? beside(row) : [row], state);
  }

  function count() {
    const number = (value) => value.toLocaleString("en");
    const all = selected.trajectories === swirl.count ? "all " : "";
    const questions = `${number(selected.groups.length)} question${selected.groups.length === 1 ? "" : "s"}`;
    return `${all}${number(selected.trajectories)}${all ? "" : ` of ${number(swirl.count)}`} trajectories, ${questions}`;
  }

  // The trajectories beside this one: all of its question, or those of its sample where they are many.
  function beside(row) {
    const all = [...swirl.rows(swirl.columns.question[row])];
    return all.length <= 8 ? all : all.filter((other) => other === row || swirl.columns.sample[other] === swirl.columns.sample[row]);
  }

  // The trajectory of a question that is opened first: the last one that matches, which is SWiRL's where it does.
  function first(group) {
    const rows = [...swirl.rows(group)], matching = rows.filter(swirl.list.matches);
    const source = focus >= 0 ? swirl.source[focus] : -1;
    const same = matching.find((row) => swirl.source[row] === source);
    return same ?? matching.findLast((row) => swirl.evaluated(swirl.sources[swirl.source[row]])) ?? matching[0] ?? rows[0];
  }
  const open = (group, replace) => go({t: swirl.link(first(group)), step: ""}, replace);
  swirl.list.onPick = (group) => open(group, false);

  function move(by) {
    const size = swirl.list.size();
    if (!size) return;
    const place = focus < 0 ? -1 : swirl.list.place(swirl.columns.question[focus]);
    const next = place < 0 ? 0 : Math.min(size - 1, Math.max(0, place + by));
    open(swirl.list.at(next), focus >= 0);
  }
  function turn(by) {
    if (focus < 0) return;
    const rows = [...swirl.rows(swirl.columns.question[focus])], place = rows.indexOf(focus) + by;
    if (place >= 0 && place < rows.length) go({t: swirl.link(rows[place]), step: ""}, true);
  }

  const KEYS = {
    j: () => move(1), k: () => move(-1), ArrowRight: () => turn(1), ArrowLeft: () => turn(-1),
    s: () => focus >= 0 && go({view: swirl.state().view === "all" ? "one" : "all"}, true),
    "/": () => { element("filters-fold").open = true; go({t: "", step: ""}); element("f-text").focus(); },
    "?": () => help.showModal(),
    Escape: () => { if (focus >= 0) go({t: "", step: ""}); list.focus(); },
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || (typing && event.key !== "Escape")) return;
    const inList = document.activeElement === list && {ArrowDown: KEYS.j, ArrowUp: KEYS.k}[event.key];
    const act = inList || KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  const filters = element("filters");
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => go({...Object.fromEntries(swirl.filterNames.map((name) => [name, ""])), t: "", step: ""}));
  filters.addEventListener("change", (event) => event.target.name !== "text" && go({[event.target.name]: event.target.value, t: "", step: ""}));
  element("f-text").addEventListener("input", (event) => go({text: event.target.value, t: "", step: ""}, true));
  element("open-help").addEventListener("click", () => help.showModal());
  window.addEventListener("hashchange", show);
})();
