"use strict";
/* All of it is a convenience: pages are whole without. Nothing recorded is ever read as markup. */
const root = document.documentElement, LIVE = "agentcascade-live", THEME = "agentcascade-theme";
function kept(store, name) { try { return store.getItem(name); } catch { return null; } }
function keep(store, name, value) { try { value === null ? store.removeItem(name) : store.setItem(name, value); } catch { /* private window */ } }
const wished = kept(localStorage, THEME);
if (wished === "dark" || wished === "light") root.dataset.theme = wished;
addEventListener("DOMContentLoaded", () => {
  const theme = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const name = () => { theme.setAttribute("aria-pressed", String(isDark())); };
  if (theme) {
    theme.hidden = false;
    name();
    dark.addEventListener("change", name);
    theme.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      next === (dark.matches ? "dark" : "light") ? (delete root.dataset.theme, keep(localStorage, THEME, null)) : (root.dataset.theme = next, keep(localStorage, THEME, next));
      name();
    });
  }
  const live = document.getElementById("live");
  if (live) {
    let on = kept(sessionStorage, LIVE) === "on";
    const say = () => live.setAttribute("aria-pressed", String(on));
    live.hidden = false;
    say();
    live.addEventListener("click", () => { on = !on; keep(sessionStorage, LIVE, on ? "on" : null); say(); if (on) location.reload(); });
    setInterval(() => {
      const busy = document.activeElement && document.activeElement.closest("form, .plot") || document.querySelector("main details[open]");
      if (on && !busy && !document.hidden) location.reload();
    }, 10000);
  }
  for (const form of document.querySelectorAll("form.filters")) {
    form.addEventListener("submit", () => { for (const field of form.elements) if (field.name && !field.value) field.disabled = true; });
    form.addEventListener("change", event => {
      const timed = form.elements.from;
      if (event.target.name === "period") timed.value = form.elements.until.value = "";
      if (event.target.tagName === "SELECT") form.requestSubmit();
    });
  }
  /* A chart is read by arrow keys, bucket by bucket, out of the table below it. */
  for (const figure of document.querySelectorAll("figure[data-table]")) {
    const rows = [...document.querySelectorAll(`#${figure.dataset.table} tbody tr`)], plot = figure.querySelector(".plot"), out = figure.querySelector(".readout");
    const heads = [...document.querySelectorAll(`#${figure.dataset.table} thead th`)].map(h => h.textContent);
    if (!rows.length) continue;
    let at = -1;
    plot.setAttribute("tabindex", "0");
    out.textContent = "Arrow keys read the chart.";
    plot.addEventListener("keydown", event => {
      const move = {ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9}[event.key];
      if (!move) return;
      event.preventDefault();
      at = at < 0 ? (move < 0 && move > -2 ? rows.length - 1 : move > 1 ? rows.length - 1 : 0) : Math.min(rows.length - 1, Math.max(0, at + move));
      out.textContent = [...rows[at].children].map((cell, i) => (i ? heads[i].toLowerCase() + " " : "") + cell.textContent.trim()).join(", ");
    });
  }
});
