// All jobs, by pipeline, the newest first.
import {follow, getJson} from "./api.js";
import {bar, clock, count, duration, element, isEnded, percent, replace, share, stateBadge} from "./dom.js";

async function allJobs() {
  const jobs = [];
  let token = null;
  let lastEvent = "0";
  do {
    const page = await getJson(`/api/v1/jobs?limit=1000${token ? `&page_token=${encodeURIComponent(token)}` : ""}`);
    if (!token) lastEvent = page.last_event_id;
    jobs.push(...page.items);
    token = page.next_page_token;
  } while (token);
  return {jobs, lastEvent};
}

function speed(job) {
  const rate = job.progress?.images_per_second;
  return job.state === "running" && rate > 0 ? `${count(rate)} images/s` : "";
}

function timeText(job) {
  if (job.state === "running" && job.progress?.seconds_left >= 0) return `${duration(job.progress.seconds_left)} left`;
  if (isEnded(job.state) && job.started && job.ended) return duration(job.ended - job.started);
  return "";
}

function row(job, evaluations) {
  const done = share(job);
  const judged = evaluations.filter((one) => one.state === "succeeded").length;
  return element("tr", {},
    element("th", {scope: "row"},
      element("a", {href: `#/jobs/${encodeURIComponent(job.id)}`, class: "job-link"}, job.name),
      element("span", {class: "kind"}, job.kind.replaceAll("_", " "),
        evaluations.length > 0 ? ` · ${judged} of ${evaluations.length} checkpoints judged` : "")),
    element("td", {class: "state-cell"}, stateBadge(job.state),
      job.num_alarms > 0 ? element("span", {class: "alarm-mark"}, `⚠ ${job.num_alarms} ${job.num_alarms === 1 ? "alarm" : "alarms"}`) : null,
      ["succeeded", "running"].includes(job.state) ? null : element("span", {class: "reason"}, job.reason)),
    element("td", {class: "progress-cell"},
      job.state === "running" || (done !== null && done < 1)
        ? [bar(job, `${job.name}: progress`),
           element("span", {class: "figures"},
             [done === null ? "" : percent(done), job.progress?.stage ?? "", speed(job)].filter(Boolean).join(" · "))]
        : null),
    element("td", {class: "time-cell"}, timeText(job),
      job.attempts > 1 ? element("span", {class: "kind"}, `attempt ${job.attempts}`) : null));
}

function pipelineCard(id, jobs) {
  const own = jobs.filter((job) => !job.parent);
  const done = own.filter((job) => job.state === "succeeded").length;
  const failed = own.filter((job) => job.state === "failed").length;
  const title = id.replace(/-p\d+$/, "");
  return element("section", {class: "card pipeline", "aria-labelledby": `pipeline-${id}`},
    element("header", {},
      element("h2", {id: `pipeline-${id}`}, title, element("span", {class: "id"}, id)),
      element("p", {class: "summary"}, `${done} of ${own.length} done`, failed > 0 ? `, ${failed} failed` : "",
        ` · submitted ${clock(own[0]?.created)}`)),
    element("table", {class: "jobs"},
      element("caption", {class: "unseen"}, `Jobs of ${id}`),
      element("thead", {}, element("tr", {},
        ...["Job", "State", "Progress", "Time"].map((name) => element("th", {scope: "col"}, name)))),
      element("tbody", {}, ...own.map((job) => row(job, jobs.filter((one) => one.parent === job.id))))));
}

export async function showJobs(view, signal) {
  const {jobs, lastEvent} = await allJobs();
  const byId = new Map(jobs.map((job) => [job.id, job]));
  const list = element("div", {class: "pipelines"});

  const draw = () => {
    const pipelines = new Map();
    for (const job of byId.values()) {
      if (!pipelines.has(job.pipeline)) pipelines.set(job.pipeline, []);
      pipelines.get(job.pipeline).push(job);
    }
    const cards = [...pipelines].reverse().map(([id, own]) => pipelineCard(id, own));
    const focused = document.activeElement?.getAttribute?.("href");
    replace(list, cards.length > 0 ? cards : element("div", {class: "card empty"},
      element("p", {}, "Nothing has been submitted yet."),
      element("pre", {}, element("code", {}, "onestep submit configs/digits/pipeline.json --follow"))));
    if (focused && list.isConnected) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  const counts = element("p", {class: "lede"});
  const drawCounts = () => {
    const own = [...byId.values()].filter((job) => !job.parent);
    const number = (states) => own.filter((job) => states.includes(job.state)).length;
    counts.textContent = own.length === 0 ? "No jobs" :
      `${number(["running", "starting", "stopping"])} running, ${number(["queued", "waiting", "blocked"])} waiting, ` +
      `${number(["succeeded"])} succeeded, ${number(["failed"])} failed`;
  };
  replace(view, element("h1", {"data-title": "Jobs"}, "Jobs"), counts, list);
  draw();
  drawCounts();

  let due = null;
  const drawSoon = () => {
    due ??= setTimeout(() => {
      due = null;
      if (signal.aborted) return;
      draw();
      drawCounts();
    }, 250);
  };
  follow("/api/v1/events?types=state,progress,alarm", lastEvent, signal, (type, data) => {
    if (type === "state") {
      const {job, time, ...summary} = data;
      byId.set(job, {...summary, progress: byId.get(job)?.progress ?? null});
    } else if (type === "alarm" && byId.has(data.job)) {
      byId.get(data.job).num_alarms += data.ended ? -1 : 1;
    } else if (type === "progress" && byId.has(data.job)) {
      byId.get(data.job).progress = data;
    }
    drawSoon();
  });
}
