"use strict";
for (const form of document.forms) form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const shown = form.querySelector("pre"), query = new URLSearchParams(), headers = {};
  let path = form.dataset.path, body;
  for (const [name, value] of new FormData(form)) {
    const [place, key] = name.split(".");
    if (place === "path") path = path.replace(`{${key}}`, encodeURIComponent(value));
    else if (place === "body") body = value;
    else if (value === "") continue;
    else if (place === "query") query.set(key, value);
    else if (place === "header") headers[key] = value;
    else headers.Authorization = `Bearer ${value}`;
  }
  shown.hidden = false;
  try {
    const answer = await fetch(query.size ? `${path}?${query}` : path, { method: form.dataset.method, headers, body });
    const text = await answer.text();
    let pretty = text;
    try { pretty = JSON.stringify(JSON.parse(text), null, 1); } catch { }
    shown.textContent = `${answer.status} ${answer.statusText}\n${pretty}`;
  } catch (error) {
    shown.textContent = String(error);
  }
});
