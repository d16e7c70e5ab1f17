// Which questions are listed, and which of their trajectories match.
"use strict";

(() => {
  const COMPARISONS = {
    mended: ["base wrong, SWiRL right", (by) => by.base === 0 && by.swirl === 1],
    broken: ["base right, SWiRL wrong", (by) => by.base === 1 && by.swirl === 0],
    "sft-less": ["SFT wrong, SWiRL right", (by) => by.sft === 0 && by.swirl === 1],
    "sft-more": ["SFT right, SWiRL wrong", (by) => by.sft === 1 && by.swirl === 0],
    "none-right": ["no model right", (by) => known(by).length > 0 && known(by).every((one) => one !== 1)],
    differ: ["models that differ", (by) => new Set(known(by)).size > 1],
  };
  const TRAITS = {
    drawn: "actions that RL drew",
    kind: "judge GOOD, oracle BAD",
    strict: "judge BAD, oracle GOOD",
    unjudged: "no verdict",
    faulty: "a malformed or cut action",
    error: "an error of a tool",
    repeats: "a repeated query",
  };
  const known = (by) => Object.values(by);
  let lower = null;

  swirl.filterNames = ["text", "source", "benchmark", "outcome", "stop", "hops", "trait", "compare"];

  // The choices of each select: [value, words]; only what the data have.
  swirl.choices = () => {
    const evaluated = swirl.sources.filter((one) => swirl.evaluated(one)).map((one) => one.name);
    const traits = Object.keys(TRAITS).filter((name) => swirl.columns.traits.some((bits) => bits & swirl.TRAITS[name]));
    const outcomes = [...new Set(swirl.columns.outcome)].sort();
    const needs = {mended: ["base", "swirl"], broken: ["base", "swirl"], "sft-less": ["sft", "swirl"], "sft-more": ["sft", "swirl"]};
    const possible = (name) => evaluated.length > 1 && (needs[name] ?? []).every((model) => evaluated.includes(model));
    return {
      source: swirl.sources.map((one) => [one.name, one.label]),
      benchmark: swirl.benchmarks.map((name) => [name, name]),
      outcome: outcomes.map((code) => [swirl.OUTCOMES[code], ["wrong", "right", "not graded"][code]]),
      stop: swirl.stops.map((name) => [name, name.replaceAll("_", " ")]),
      hops: [...new Set(swirl.questions.hops)].sort((a, b) => a - b).map((hops) => [String(hops), hops ? String(hops) : "not known"]),
      trait: traits.map((name) => [name, TRAITS[name]]),
      compare: Object.keys(COMPARISONS).filter(possible).map((name) => [name, COMPARISONS[name][0]]),
    };
  };
  swirl.evaluated = (source) => source.name !== "synthesis";

  // {groups: Int32Array of questions, matches: Uint8Array by row, trajectories: their number}
  swirl.select = (filters) => {
    const {columns, questions} = swirl;
    const matches = new Uint8Array(swirl.count), groups = [];
    const wanted = rowFilter(filters), words = (filters.text ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const benchmark = filters.benchmark ? swirl.benchmarks.indexOf(filters.benchmark) : -1;
    const comparison = COMPARISONS[filters.compare]?.[1];
    if (words.length) lower ??= questions.text.map((text, q) => `${text} ${questions.id[q]}`.toLowerCase());
    let trajectories = 0;
    for (let group = 0; group < swirl.groups; group++) {
      if (filters.benchmark && questions.benchmark[group] !== benchmark) continue;
      if (filters.hops && questions.hops[group] !== Number(filters.hops)) continue;
      if (!words.every((word) => lower[group].includes(word))) continue;
      const rows = swirl.rows(group);
      const samples = comparison ? compared(rows, comparison) : null;
      if (samples && !samples.size) continue;
      let found = 0;
      for (const row of rows) {
        if (wanted(row) && (!samples || (swirl.evaluated(swirl.sources[swirl.source[row]]) && samples.has(columns.sample[row])))) {
          matches[row] = 1;
          found++;
        }
      }
      if (found) groups.push(group);
      trajectories += found;
    }
    return {groups: Int32Array.from(groups), matches, trajectories};
  };

  function rowFilter(filters) {
    const {columns, source} = swirl;
    const from = swirl.sources.findIndex((one) => one.name === filters.source);
    const outcome = swirl.OUTCOMES.indexOf(filters.outcome), stop = swirl.stops.indexOf(filters.stop);
    const bit = swirl.TRAITS[filters.trait];
    return (row) =>
      (!filters.source || source[row] === from) && (!filters.outcome || columns.outcome[row] === outcome) &&
      (!filters.stop || columns.stop[row] === stop) && (!filters.trait || (columns.traits[row] & bit) !== 0);
  }

  // The numbers of the samples whose outcomes, by model, are as the comparison wants them.
  function compared(rows, comparison) {
    const samples = new Map();
    for (const row of rows) {
      const one = swirl.sources[swirl.source[row]];
      if (!swirl.evaluated(one)) continue;
      const sample = swirl.columns.sample[row];
      if (!samples.has(sample)) samples.set(sample, {});
      samples.get(sample)[one.name] = swirl.columns.outcome[row];
    }
    return new Set([...samples].filter(([, by]) => comparison(by)).map(([sample]) => sample));
  }
})();
