// The data: the index, which is loaded first, and the shards of bodies, which are loaded when they are needed.
"use strict";

const swirl = {};

(() => {
  const TRAITS = {kind: 1, strict: 2, unjudged: 4, faulty: 8, error: 16, repeats: 32, drawn: 64};
  const OUTCOMES = ["wrong", "right", "ungraded"];
  const waiting = new Map(); // "source-number" -> what to call with its bodies
  const loaded = new Map(); // the shards that were opened last
  const KEPT = 40;
  const PROVENANCE = ["../provenance.js", "provenance.js"]; // beside the report's page, or beside this one

  // index.js calls this. Rows are trajectories, source by source; groups are questions.
  swirl.load = (text) => {
    const index = JSON.parse(text);
    const columns = {};
    for (const [name, values] of Object.entries(index.rows)) columns[name] = Int32Array.from(values);
    const count = columns.question.length, questions = index.questions.id.length;
    const source = new Uint8Array(count);
    let first = 0;
    index.sources.forEach((one, number) => {
      one.first = first;
      source.fill(number, first, first += one.rows);
    });
    // The rows of question q are rowsOf[start[q]] to rowsOf[start[q + 1] - 1], in the order of sources and samples.
    const start = new Int32Array(questions + 1);
    for (const q of columns.question) start[q + 1]++;
    for (let q = 0; q < questions; q++) start[q + 1] += start[q];
    const next = start.slice(), rowsOf = new Int32Array(count);
    for (let row = 0; row < count; row++) rowsOf[next[columns.question[row]]++] = row;
    const ids = new Map(Object.entries(index.ids).map(([row, id]) => [Number(row), id]));
    Object.assign(swirl, {TRAITS, OUTCOMES, count, source, columns});
    Object.assign(swirl, {sources: index.sources, questions: index.questions, benchmarks: index.benchmarks});
    Object.assign(swirl, {stops: index.stops, report: index.report, groups: questions});
    Object.assign(swirl, {results: index.results, whose: index.whose});
    swirl.rows = (group) => rowsOf.subarray(start[group], start[group + 1]);
    swirl.id = (row) => ids.get(row) ?? `${index.questions.id[columns.question[row]]}/${columns.sample[row]}`;
    swirl.start();
  };

  // The row of a permalink such as `swirl:mini-hotpotqa/evaluation/0/0`, or -1.
  swirl.find = (link) => {
    const at = link.indexOf(":"), name = link.slice(0, at), id = link.slice(at + 1);
    for (const one of swirl.sources) {
      if (one.name !== name) continue;
      for (let row = one.first; row < one.first + one.rows; row++) if (swirl.id(row) === id) return row;
    }
    return -1;
  };
  swirl.link = (row) => `${swirl.sources[swirl.source[row]].name}:${swirl.id(row)}`;
  swirl.name = (row) => {
    const own = swirl.rows(swirl.columns.question[row]).filter((other) => swirl.source[other] === swirl.source[row]);
    const label = swirl.sources[swirl.source[row]].label;
    return own.length > 1 ? `${label} ${swirl.columns.sample[row] + 1}` : label;
  };

  // A promise of what is shown of one trajectory.
  swirl.body = async (row) => {
    const number = swirl.source[row], {first, shards} = swirl.sources[number], inside = row - first;
    let low = 0, high = shards.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (shards[middle] <= inside) low = middle; else high = middle - 1;
    }
    const bodies = await shard(number, low);
    return bodies[inside - shards[low]];
  };

  function shard(source, number) {
    const key = `${source}-${number}`;
    if (loaded.has(key)) return loaded.get(key);
    const promise = new Promise((resolve, reject) => {
      waiting.set(key, resolve);
      const element = document.createElement("script");
      element.onerror = () => {
        loaded.delete(key);
        reject(new Error(`shards/${key}.js could not be loaded; it must lie beside this page`));
      };
      element.onload = () => element.remove();
      element.src = url(key);
      document.head.append(element);
    });
    loaded.set(key, promise);
    if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    return promise;
  }

  // A shard calls this.
  swirl.shard = (source, number, text) => {
    const key = `${source}-${number}`;
    waiting.get(key)?.(JSON.parse(text));
    waiting.delete(key);
  };

  // Whose results these are; nothing is shown where the script that says so is missing.
  swirl.provenance = (place) => {
    place.dataset.results = swirl.results;
    const element = document.createElement("script");
    element.src = url(swirl.whose);
    document.head.append(element);
  };

  // No other text of this page can become the address of a script (Trusted Types, where the browser has them).
  const create = (key) => {
    if (PROVENANCE.includes(key)) return key;
    if (!/^\d+-\d+$/.test(key)) throw new TypeError(`${key} is no shard`);
    return `shards/${key}.js`;
  };
  const policy = window.trustedTypes?.createPolicy("swirl-shards", {createScriptURL: create});
  const url = (key) => (policy ? policy.createScriptURL(key) : create(key));
})();
