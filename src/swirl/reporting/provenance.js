// Shows whose results a page shows. The page says by the digest of its results which ones these are.
((text) => {
  const given = JSON.parse(text), place = document.getElementById("provenance");
  if (!place) return;
  const known = place.dataset.results === given.results;
  const parts = known ? given.parts : [["", "provenance.js is about other results than this page: run swirl report", ""]];
  place.replaceChildren(...parts.flatMap(([label, value, address]) => {
    const part = document.createElement("span");
    const shown = document.createElement(address ? "a" : label ? "span" : "b");
    shown.textContent = value;
    if (address) shown.href = address;
    part.append(label && `${label} `, shown);
    return [part, " "];
  }));
})
