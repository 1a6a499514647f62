// Which view is shown, the theme, and whether the coordinator is there.
import {onConnection} from "./api.js";
import {element, replace, setText} from "./dom.js";
import {showCompare} from "./compare.js";
import {showJob} from "./job.js";
import {showJobs} from "./jobs.js";
import {redrawAll} from "./charts.js";

const content = document.getElementById("content");
let leave = null;  // ends the view that is shown

async function show() {
  leave?.abort();
  leave = new AbortController();
  const signal = leave.signal;
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const view = element("div", {class: "view"});
  try {
    if (parts[0] === "jobs" && parts[1]) await showJob(view, parts[1], signal);
    else if (parts[0] === "compare" && parts[2]) await showCompare(view, parts[1], parts[2], signal);
    else await showJobs(view, signal);
  } catch (error) {
    if (signal.aborted) return;
    replace(view, element("h1", {}, "This can't be shown"), element("p", {class: "problem"}, error.message),
      element("p", {}, element("a", {href: "#/"}, "All jobs")));
  }
  if (signal.aborted) return;
  replace(content, view);
  document.title = `${view.querySelector("h1")?.dataset.title ?? "Jobs"} · Onestep`;
  view.dispatchEvent(new CustomEvent("shown"));
}

const themes = ["system", "light", "dark"];
function setTheme(theme) {
  localStorage.setItem("onestep-theme", theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(document.getElementById("theme"), `Theme: ${theme}`);
  redrawAll();
}
document.getElementById("theme").addEventListener("click", () => {
  const now = localStorage.getItem("onestep-theme") ?? "system";
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});
setTheme(themes.includes(localStorage.getItem("onestep-theme")) ? localStorage.getItem("onestep-theme") : "system");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

const connection = document.getElementById("connection");
onConnection((state) => {
  connection.dataset.state = state;
  setText(connection.querySelector(".text"), state === "live" ? "live" : "coordinator away, trying again");
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
window.addEventListener("hashchange", () => {
  window.scrollTo(0, 0);
  show().then(() => content.focus({preventScroll: true}));
});
show();
