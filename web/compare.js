// Two runs side by side: their figures, their curves in one frame, their samples at the same number of images.
import {getJson, jobPath} from "./api.js";
import {CurveFigure, Curves} from "./charts.js";
import {clock, count, duration, element, figure, replace, stateBadge} from "./dom.js";
import {groupTitles} from "./job.js";
import {SampleTimeline} from "./samples.js";

async function load(id) {
  const job = await getJson(jobPath(id));
  const [metrics, samples, checkpoints] = await Promise.all([
    getJson(jobPath(job.id, "/metrics?max_points=1000")),
    getJson(jobPath(job.id, "/samples")),
    getJson(jobPath(job.id, "/checkpoints")),
  ]);
  return {job, curves: new Curves(metrics.series), samples: samples.items, checkpoints: checkpoints.items};
}

// Keys of the job specs whose values differ, as paths.
function differences(a, b, path = "") {
  if (JSON.stringify(a) === JSON.stringify(b)) return [];
  const objects = [a, b].every((one) => one !== null && typeof one === "object" && !Array.isArray(one));
  if (!objects) return [[path, a, b]];
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].sort().flatMap((key) => differences(a[key], b[key], path ? `${path}.${key}` : key));
}

const shown = (value) => value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);

export async function showCompare(view, first, second, signal) {
  const runs = await Promise.all([load(first), load(second)]);
  const [a, b] = runs;
  const best = (run) => run.checkpoints.filter((one) => one.frechet !== null).sort((x, y) => x.frechet - y.frechet)[0];
  const link = (run) => element("a", {href: `#/jobs/${encodeURIComponent(run.job.id)}`}, run.job.id);
  const time = ({job}) => job.started ? duration((job.ended ?? Date.now() / 1000) - job.started) : "–";
  const rows = [
    ["State", ...runs.map((run) => stateBadge(run.job.state))],
    ["Images", ...runs.map((run) => run.job.progress ? count(run.job.progress.images) : "–")],
    ["Best Fréchet distance", ...runs.map((run) => best(run) ? `${figure(best(run).frechet)} at ${count(best(run).images)} images` : "–")],
    ["Ran for", ...runs.map(time)],
    ["Started", ...runs.map((run) => clock(run.job.started))],
  ];
  rows.push(["Alarms", ...runs.map((run) => run.job.alarms.map((alarm) => alarm.code.replaceAll("_", " ")).join(", ") || "none")]);
  const figures = [];
  for (const [group, [title]] of Object.entries(groupTitles)) {
    const groups = runs.map((run) => run.curves.groups()[group]);
    for (const key of [...new Set(groups.flat().map((curve) => curve.key))]) {
      const one = new CurveFigure(["frechet", "speed"].includes(group) ? title : `${title}: ${key.replace(/^eval\./, "").replaceAll("_", " ")}`);
      const curves = runs.flatMap((run, index) => groups[index].filter((curve) => curve.key === key)
        .map((curve) => ({name: run.job.id, points: curve.points, line: index === 0 ? 0 : 7})));
      figures.push([one, curves, runs.flatMap((run) => run.job.alarms)]);
    }
  }
  const timelines = runs.map((run) => new SampleTimeline(run.job.id));
  timelines[0].onmove = (sample) => timelines[1].moveTo(sample.images);
  timelines[1].onmove = (sample) => timelines[0].moveTo(sample.images);
  const differ = differences(a.job.spec, b.job.spec).filter(([path]) => path !== "name" && path !== "output");

  replace(view,
    element("p", {class: "crumbs"}, element("a", {href: "#/"}, "Jobs"), " / two runs"),
    element("h1", {"data-title": "Two runs"}, "Two runs side by side"),
    element("div", {class: "scroll card", tabindex: "0", role: "region", "aria-label": "Both runs"},
      element("table", {class: "compare-table"},
        element("thead", {}, element("tr", {}, element("td"), element("th", {scope: "col"}, link(a)), element("th", {scope: "col"}, link(b)))),
        element("tbody", {}, ...rows.map(([name, ...cells]) => element("tr", {}, element("th", {scope: "row"}, name),
          ...cells.map((cell) => element("td", {}, cell))))))),
    element("section", {class: "block"}, element("h2", {}, "Samples at the same number of images"),
      a.samples.length + b.samples.length > 0
        ? element("div", {class: "pair"}, ...timelines.map((one) => one.node))
        : element("p", {class: "empty"}, "Neither has judged checkpoints.")),
    element("section", {class: "block"}, element("h2", {}, "Curves"), element("div", {class: "curves"}, ...figures.map(([one]) => one.node))),
    element("section", {class: "block"}, element("h2", {}, "What differs in their specs"),
      differ.length === 0 ? element("p", {class: "empty"}, "Nothing.")
        : element("div", {class: "scroll card", tabindex: "0", role: "region", "aria-label": "Differences"}, element("table", {},
          element("thead", {}, element("tr", {}, ...["Key", a.job.id, b.job.id].map((name) => element("th", {scope: "col"}, name)))),
          element("tbody", {}, ...differ.map(([path, left, right]) => element("tr", {}, element("th", {scope: "row"}, element("code", {}, path)),
            element("td", {}, shown(left)), element("td", {}, shown(right)))))))));
  timelines[0].set(a.samples);
  timelines[1].set(b.samples);
  view.addEventListener("shown", () => {
    for (const [one, curves, alarms] of figures) one.set(curves, {alarms});
  });
  signal.addEventListener("abort", () => {
    for (const [one] of figures) one.destroy();
    for (const one of timelines) one.destroy();
  });
}
