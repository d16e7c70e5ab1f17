// One question with its trajectories, one by one or side by side.
"use strict";

(() => {
  const {make} = swirl;
  const detail = document.getElementById("detail");
  const CALLS = {answer: "Answer", malformed: "Not read", cut: "Cut off"};
  let latest = 0;

  // Shows `rows`, of which `focus` is the chosen one; `hrefs` makes the links. Resolves when all bodies are there.
  swirl.detail = async (focus, rows, state) => {
    const mine = ++latest;
    const bodies = await Promise.all([...rows].map(swirl.body)).catch((error) => error);
    if (mine !== latest) return;
    if (bodies instanceof Error) {
      detail.replaceChildren(make("p", "problem", bodies.message));
      return;
    }
    const columns = [...rows].map((row, number) => column(row, bodies[number], row === focus, state));
    const grid = make("div", rows.length > 1 ? "columns" : "columns single", null, columns);
    grid.style.setProperty("--steps", String(Math.max(...bodies.map((body) => (body.steps ?? []).length))));
    detail.replaceChildren(...head(focus, bodies[[...rows].indexOf(focus)], state), grid);
    const chosen = detail.querySelector(".step.chosen"), own = grid.querySelector(".column.focus");
    detail.scrollTop = 0;
    grid.scrollLeft = own.offsetLeft - grid.offsetLeft - (grid.clientWidth - own.offsetWidth) / 2;
    chosen?.scrollIntoView({block: "center", inline: "nearest"});
  };
  // What is shown while no trajectory is open: a hint, and views worth a look as links.
  swirl.empty = (words, state) => {
    latest++;
    const choices = swirl.choices();
    const views = (name, title) => make("section", "views", null, [
      make("h2", "", title),
      make("ul", "", null, choices[name].map(([value, said]) =>
        make("li", "", null, [link("", said, {...state, t: "", step: "", compare: "", trait: "", [name]: value})]))),
    ]);
    detail.replaceChildren(make("p", "hint", words), ...(choices.compare.length ? [views("compare", "Questions with")] : []),
      ...(choices.trait.length ? [views("trait", "Trajectories that have a step with")] : []));
  };

  function head(focus, body, state) {
    const group = swirl.columns.question[focus], {questions, benchmarks} = swirl, hops = questions.hops[group];
    const tabs = make("div", "tabs", null, [...swirl.rows(group)].map((row) => tab(row, row === focus, state)));
    tabs.setAttribute("role", "group");
    tabs.setAttribute("aria-label", "Trajectories of this question");
    const facts = [benchmarks[questions.benchmark[group]], hops ? `${hops} hop${hops > 1 ? "s" : ""}` : "", questions.id[group]];
    const back = link("back", "← All questions", {...state, t: "", step: ""});
    return [
      make("div", "bar", null, [back, tabs, toggle(state, swirl.rows(group).length)]),
      make("h2", "question", body.text ?? questions.text[group]),
      make("p", "facts", null, [
        make("span", "", `${facts.filter(Boolean).join(" · ")} · accepted: `),
        make("b", "", (body.answers ?? []).join(" | ") || "(not known)"),
      ]),
    ];
  }

  function tab(row, chosen, state) {
    const outcome = swirl.columns.outcome[row];
    const element = link(`tab ${swirl.OUTCOMES[outcome]}`, `${swirl.name(row)} ${swirl.sign(outcome)}`, {...state, t: swirl.link(row), step: ""});
    if (chosen) element.setAttribute("aria-current", "true");
    return element;
  }

  function toggle(state, count) {
    if (count < 2) return null;
    const all = state.view === "all";
    return link("toggle", all ? "Show one" : "Side by side", {...state, view: all ? "one" : "all"});
  }

  function link(className, words, state) {
    const element = make("a", className, words);
    element.href = swirl.href(state);
    return element;
  }

  function column(row, body, focus, state) {
    const outcome = swirl.columns.outcome[row], stop = swirl.stops[swirl.columns.stop[row]].replaceAll("_", " ");
    const result = ["wrong", "right", "not graded"][outcome];
    const title = make("h3", "", null, [
      link("", swirl.name(row), {...state, t: swirl.link(row), step: ""}),
      make("span", `badge ${["bad", "good", "none"][outcome]}`, `${["✗", "✓", "?"][outcome]} ${result}`),
    ]);
    const said = body.answer ? make("p", "said", null, [make("span", "", "answered "), make("b", "", body.answer)]) : make("p", "said", `no answer: ${stop}`);
    const top = make("header", "", null, [title, said]);
    if (body.error) top.append(make("p", "problem", body.error));
    if (body.outcome) top.append(verdict("Judge of the answer", body.outcome));
    const steps = (body.steps ?? []).map((step, number) => card(step, number + 1, focus, row, state));
    const element = make("article", focus ? "column focus" : "column", null, [top, ...steps]);
    element.setAttribute("aria-label", swirl.name(row));
    return element;
  }

  function card(step, number, focus, row, state) {
    const deciding = step.oracle ?? step.judge?.[0];
    const tone = deciding === true ? "good" : deciding === false ? "bad" : "none";
    const name = link("step-name", `Step ${number}`, {...state, t: swirl.link(row), step: String(number)});
    const labels = [verdict("Judge", step.judge)];
    if (step.oracle !== undefined) labels.push(verdict("Oracle", [step.oracle, null, ""]));
    const top = make("header", "", null, [
      name, make("span", "kind", step.tool ?? step.kind), make("span", "size", `${step.tokens ?? 0} tokens`), ...labels,
    ]);
    const element = make("section", `step ${tone}`, null, [top, part("thought", "Thought", step.thought), part("call", CALLS[step.kind] ?? "Call", step.call)]);
    for (const [text, error] of step.seen ?? []) element.append(part(error ? "seen error" : "seen", error ? "Error" : "Result", text, true));
    if (step.judge?.[2]) element.append(fold("The judge's reasons", [part("reasons", "", step.judge[2])]));
    for (const drawn of step.draws ?? []) element.append(draws(drawn));
    if (focus && state.step === String(number)) element.classList.add("chosen");
    return element;
  }

  // A block of what was said, with its name before it.
  function part(className, name, words, always = false) {
    if (!words && !always) return null;
    const text = make("pre", "", words.trim() || "(empty)");
    return make("div", `part ${className}`, null, [name ? make("span", "name", name) : null, text]);
  }

  function verdict(who, given) {
    if (!given || given[0] === null) return make("span", "badge none", `? ${who}: no verdict`);
    const score = typeof given[1] === "number" ? ` ${given[1].toFixed(2)}` : "";
    return make("span", `badge ${given[0] ? "good" : "bad"}`, `${given[0] ? "✓" : "✗"} ${who}: ${given[0] ? "GOOD" : "BAD"}${score}`);
  }

  function fold(title, children) {
    return make("details", "fold", null, [make("summary", "", title), ...children]);
  }

  // What RL drew in this state: rewards as bars, advantages with their sign.
  function draws({update, actions}) {
    const count = actions.reduce((sum, action) => sum + action[1], 0);
    const table = make("table", "draws", null, [
      make("thead", "", null, [make("tr", "", null, ["Action", "n", "Reward", "Advantage", "log π"].map((words) => make("th", "", words)))]),
      make("tbody", "", null, [...actions].sort((a, b) => (b[2] ?? -1) - (a[2] ?? -1)).map(drawnRow)),
    ]);
    const scroll = make("div", "scroll", null, [table]);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Actions that RL drew");
    const box = fold(`RL, update ${update}: ${count} actions drawn here`, [scroll]);
    box.open = true;
    return box;
  }

  function drawnRow([text, times, reward, advantage, logprob, cut]) {
    const bar = make("span", "bar-of");
    bar.style.setProperty("--share", String(reward ?? 0));
    const tone = advantage > 0 ? "up" : advantage < 0 ? "down" : "";
    const sign = advantage > 0 ? "▲ +" : advantage < 0 ? "▼ " : "";
    return make("tr", "", null, [
      make("td", "action", null, [make("pre", "", `${text.trim()}${cut ? " (cut)" : ""}`)]),
      make("td", "", `×${times}`),
      make("td", "", null, [bar, make("span", "", reward === null ? "none" : reward.toFixed(3))]),
      make("td", tone, `${sign}${advantage.toFixed(3)}`),
      make("td", "", logprob === null ? "–" : logprob.toFixed(2)),
    ]);
  }
})();
