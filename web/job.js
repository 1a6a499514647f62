// One job: what it does now, its curves, samples, ranks, shards, checkpoints and logs.
import {follow, getJson, getText, jobPath, post} from "./api.js";
import {CurveFigure, Curves} from "./charts.js";
import {bar, bytes, clock, count, duration, element, figure, isEnded, percent, replace, setText, share, stateBadge, toast} from "./dom.js";
import {SampleTimeline} from "./samples.js";

const maxPoints = 1000;

export const groupTitles = {
  losses: ["Losses", "lower is not always better: the two networks chase each other"],
  frechet: ["Fréchet distance", "of each judged checkpoint; lower is better"],
  quality: ["Quality", "of each judged checkpoint"],
  health: ["Health signals", "of each report"],
  speed: ["Images per second", ""],
};

function section(title, ...children) {
  const id = `section-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return element("section", {class: "block", "aria-labelledby": id}, element("h2", {id}, title), ...children);
}

function table(name, columns, rows) {
  return element("div", {class: "scroll card", tabindex: "0", role: "region", "aria-label": `Table: ${name}`},
    element("table", {},
      element("caption", {class: "unseen"}, name),
      element("thead", {}, element("tr", {}, ...columns.map((column) => element("th", {scope: "col"}, column)))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell, index) =>
        index === 0 ? element("th", {scope: "row"}, cell) : element("td", {}, cell)))))));
}

// ---- the head: state, figures, buttons ----

class Head {
  constructor(job) {
    this.job = job;
    this.node = element("header", {class: "job-head"});
    this.title = element("h1", {"data-title": job.name}, job.name);
    this.state = element("div", {class: "state-line", role: "status"});
    this.facts = element("dl", {class: "facts"});
    this.progress = element("div", {class: "big-progress"});
    this.buttons = element("div", {class: "actions"});
    this.alarms = element("div", {class: "alarms"});
    const kind = job.kind.replaceAll("_", " ");
    replace(this.node,
      element("p", {class: "crumbs"}, element("a", {href: "#/"}, "Jobs"), " / ", job.pipeline,
        job.parent ? [" / ", element("a", {href: `#/jobs/${encodeURIComponent(job.parent)}`}, job.parent)] : null),
      element("div", {class: "title-line"}, this.title, element("span", {class: "id"}, `${kind} · ${job.id}`), this.buttons),
      this.state, this.progress, this.facts, this.alarms);
    this.actions = {
      checkpoint: this.button("Checkpoint now", "/checkpoints", "asked for a checkpoint"),
      resume: this.button("Resume", "/resume", "goes on"),
      cancel: this.button("Cancel", "/cancel", "is asked to save and end", "danger"),
    };
    this.buttons.append(...Object.values(this.actions));
  }
  button(label, verb, done, kind = "") {
    const button = element("button", {type: "button", class: kind, onclick: async () => {
      if (kind === "danger" && !button.dataset.sure) {
        button.dataset.sure = "yes";
        setText(button, "Really cancel?");
        setTimeout(() => {
          delete button.dataset.sure;
          setText(button, label);
        }, 4000);
        return;
      }
      button.disabled = true;
      try {
        await post(jobPath(this.job.id, verb));
        toast(`${this.job.name} ${done}`);
      } catch (error) {
        toast(error.message, "bad");
      }
      button.disabled = false;
    }}, label);
    return button;
  }
  draw() {
    const job = this.job;
    const progress = job.progress ?? {};
    const training = ["train_detector", "train_teacher", "distill", "train_autoencoder", "train_text_teacher"].includes(job.kind);
    this.actions.checkpoint.hidden = !(training && job.state === "running");
    this.actions.resume.hidden = !["failed", "cancelled", "interrupted"].includes(job.state);
    this.actions.cancel.hidden = isEnded(job.state) && job.state !== "interrupted";
    const stateText = `${job.state}|${job.reason}`;
    if (this.drawnState !== stateText) {
      this.drawnState = stateText;
      replace(this.state, stateBadge(job.state), element("span", {class: "reason"}, job.reason));
    }
    const done = share(job);
    replace(this.progress, bar(job, "Progress"),
      element("span", {class: "figures"}, done === null ? "" : percent(done),
        job.state === "running" && progress.stage ? ` · ${progress.stage}` : "",
        job.state === "running" && progress.seconds_left >= 0 ? ` · ${duration(progress.seconds_left)} left` : ""));
    const ran = job.started ? (job.ended ?? Date.now() / 1000) - job.started : null;
    const attempts = Array.isArray(job.attempts) ? job.attempts.length : job.attempts;
    const facts = [
      ["Images", progress.images_total ? `${count(progress.images)} / ${count(progress.images_total)}` : "–"],
      ["Iteration", progress.iterations ? `${count(progress.iteration)} / ${count(progress.iterations)}` : "–"],
      ["Images/s", job.state === "running" && progress.images_per_second ? count(progress.images_per_second) : "–"],
      ["Ran for", ran === null ? "–" : duration(ran)],
      ["Attempts", String(attempts)],
      ["Ranks", String(job.ranks)],
      ["Started", clock(job.started)],
      ["Digest", job.digest ? element("code", {title: job.digest}, job.digest.slice(0, 12)) : "–"],
    ];
    replace(this.facts, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    replace(this.alarms, ...job.alarms.map((alarm) => element("p", {class: alarm.ended ? "alarm over" : "alarm"},
      element("strong", {}, `⚠ ${alarm.code.replaceAll("_", " ")}`), " ", alarm.reason,
      element("span", {class: "kind"}, ` at ${count(alarm.images)} images, ${clock(alarm.raised)}`,
        alarm.ended ? `; over since ${clock(alarm.ended)}` : "",
        alarm.action === "continue" ? "" : alarm.action === "stop" ? "; the job was stopped" : "; a checkpoint was saved"),
      element("span", {class: "hint"}, alarm.hint))));
  }
}

// ---- logs ----

class LogPane {
  constructor(job) {
    this.job = job;
    this.text = element("pre", {class: "log", tabindex: "0", role: "log", "aria-label": "Log", "aria-live": "off"});
    this.keep = element("input", {type: "checkbox", checked: true, id: "log-follow"});
    this.rank = element("select", {id: "log-rank", onchange: () => this.load()},
      ...Array.from({length: job.ranks}, (_, rank) => element("option", {value: String(rank)}, `rank ${rank}`)),
      element("option", {value: "mpirun"}, "mpirun"));
    this.node = element("div", {class: "card log-card"},
      element("div", {class: "tools"}, element("label", {for: "log-rank"}, "Of"), this.rank,
        this.keep, element("label", {for: "log-follow"}, "keep at the end")),
      this.text);
  }
  async load() {
    const rank = this.rank.value;
    // Of a long log the end: its length is where an offset beyond it stops.
    let answer = await getText(jobPath(this.job.id, `/logs?rank=${rank}&limit=1048576`));
    let text = answer.text;
    for (let pieces = 0; answer.text.length > 0 && pieces < 64; ++pieces) {
      answer = await getText(jobPath(this.job.id, `/logs?rank=${rank}&limit=1048576&offset=${answer.next}`));
      text = (text + answer.text).slice(-400000);
    }
    this.place = {attempt: Number(answer.attempt), offset: Number(answer.next)};
    this.text.textContent = text || "Nothing yet.";
    this.toEnd();
  }
  add(event) {
    if (this.rank.value !== "0") return;
    if (this.place && event.attempt === this.place.attempt && event.offset < this.place.offset) return;
    if (this.text.textContent === "Nothing yet.") this.text.textContent = "";
    this.text.textContent = (this.text.textContent + event.text).slice(-400000);
    this.toEnd();
  }
  toEnd() {
    if (this.keep.checked) this.text.scrollTop = this.text.scrollHeight;
  }
}

// ---- the rest ----

function drawRanks(box, ranks, job) {
  const rate = job.state === "running" ? job.progress?.images_per_second : null;
  replace(box, ranks.length === 0
    ? element("p", {class: "empty"}, isEnded(job.state) ? "No rank runs any more." : "No rank has said hello yet.")
    : table("Ranks", ["Rank", "Host", "Process", "Heard", "Iteration", "Step", "Images/s", "Trouble"], ranks.map((rank) => [
      String(rank.rank), rank.host, String(rank.pid), `${rank.seconds_silent.toFixed(1)} s ago`,
      rank.iteration === null ? "–" : count(rank.iteration),
      rank.seconds_a_step === null ? "–" : `${(rank.seconds_a_step * 1000).toFixed(0)} ms`,
      rate ? count(rate / job.ranks) : "–",
      rank.trouble ? element("strong", {class: "trouble"}, `⚠ ${rank.trouble}`) : "none"])));
}

function drawCheckpoints(box, checkpoints) {
  replace(box, checkpoints.length === 0 ? element("p", {class: "empty"}, "None yet.")
    : table("Checkpoints", ["Iteration", "Images", "Fréchet", "Size", "Committed", "Attempt", "SHA-256"],
      [...checkpoints].reverse().map((one) => [
        element("span", {}, count(one.iteration), one.best ? element("span", {class: "best"}, " ★ best") : ""),
        count(one.images), figure(one.frechet), bytes(one.bytes), clock(one.committed), String(one.attempt),
        element("code", {class: "digest", title: one.digest}, one.digest)])));
}

function drawShards(box, shards) {
  const done = shards.filter((shard) => shard.state === "done").length;
  replace(box, element("p", {class: "hint"}, `${done} of ${shards.length} done; each square is a shard`),
    element("ol", {class: "shards card"}, ...shards.map((shard) => element("li", {
      class: `shard ${shard.state}`,
      title: `shard ${shard.index}: ${shard.state}, ${count(shard.count)} pairs from ${count(shard.first)}, rank ${shard.rank}`,
    }, element("span", {class: "unseen"}, `shard ${shard.index}: ${shard.state}, rank ${shard.rank}`)))));
}

export async function showJob(view, id, signal) {
  const job = await getJson(jobPath(id));
  const [metrics, checkpoints, samples, shards] = await Promise.all([
    getJson(jobPath(job.id, `/metrics?max_points=${maxPoints}`)),
    getJson(jobPath(job.id, "/checkpoints")),
    getJson(jobPath(job.id, "/samples")),
    getJson(jobPath(job.id, "/shards")),
  ]);
  const head = new Head(job);
  const curves = new Curves(metrics.series);
  const figures = Object.fromEntries(Object.entries(groupTitles).map(([name, [title, hint]]) => [name, new CurveFigure(title, hint)]));
  const timeline = new SampleTimeline();
  const logs = new LogPane(job);
  const ranksBox = element("div");
  const checkpointsBox = element("div");
  const shardsBox = element("div");
  const compare = element("div", {class: "compare-pick"});
  const curveSection = section("Curves", compare, element("div", {class: "curves"}, ...Object.values(figures).map((one) => one.node)));
  const sampleSection = section("Samples", timeline.node);
  const shardSection = section("Shards", shardsBox);
  const checkpointSection = section("Checkpoints", checkpointsBox);
  const state = {checkpoints: checkpoints.items};

  const drawCurves = () => {
    const groups = curves.groups();
    curveSection.hidden = Object.values(groups).every((group) => group.length === 0);
    const context = {stages: curves.stages(), alarms: job.alarms};
    for (const [name, figure_] of Object.entries(figures)) figure_.set(groups[name], context);
  };
  const drawAll = () => {
    head.draw();
    drawCheckpoints(checkpointsBox, state.checkpoints);
    checkpointSection.hidden = state.checkpoints.length === 0 && !["distill", "train_teacher", "train_detector", "train_autoencoder", "train_text_teacher"].includes(job.kind);
  };

  replace(view, head.node, curveSection, sampleSection, section("Ranks", ranksBox), shardSection, checkpointSection,
    section("Log", logs.node),
    section("Job spec", element("details", {class: "card spec"}, element("summary", {}, "As it was submitted"),
      element("pre", {tabindex: "0"}, JSON.stringify(job.spec, null, 2)))));
  drawAll();
  drawRanks(ranksBox, [], job);
  shardSection.hidden = shards.items.length === 0;
  drawShards(shardsBox, shards.items);
  sampleSection.hidden = samples.items.length === 0;
  timeline.set(samples.items);
  await Promise.all([logs.load(), drawCompare(compare, job)]);
  view.addEventListener("shown", () => {
    drawCurves();
    logs.toEnd();
  });

  const refresh = async (path, use) => {
    try {
      use(await getJson(jobPath(job.id, path)));
    } catch {
      // the coordinator is away: the next time
    }
  };
  const refreshRanks = () => refresh("/workers", (answer) => drawRanks(ranksBox, answer.items, job));
  const refreshSamples = () => refresh("/samples", (answer) => {
    sampleSection.hidden = answer.items.length === 0;
    timeline.set(answer.items);
  });
  const refreshShards = () => refresh("/shards", (answer) => drawShards(shardsBox, answer.items));
  refreshRanks();
  const slow = setInterval(() => {
    if (document.hidden) return;
    if (!isEnded(job.state)) refreshRanks();
    if (job.kind === "generate_pairs" && !isEnded(job.state)) refreshShards();
  }, 2000);

  let due = null;
  const drawSoon = () => {
    due ??= setTimeout(() => {
      due = null;
      if (signal.aborted) return;
      drawAll();
      drawCurves();
    }, 300);
  };
  signal.addEventListener("abort", () => {
    clearInterval(slow);
    clearTimeout(due);
    timeline.destroy();
    for (const one of Object.values(figures)) one.destroy();
  });

  const place = logs.place?.attempt > 0 ? `${job.last_event_id}.${logs.place.attempt}.${logs.place.offset}` : job.last_event_id;
  follow(jobPath(job.id, "/events"), place, signal, (type, data) => {
    if (type === "state") {
      const {job: _, time, ...summary} = data;
      Object.assign(job, summary);
      if (isEnded(job.state)) {
        refreshRanks();
        refreshShards();
      }
    } else if (type === "progress") {
      job.progress = data;
    } else if (type === "metric") {
      curves.add(data);
      if (data.stage === "evaluation") refreshSamples();
    } else if (type === "checkpoint") {
      const {job: _, time, ...checkpoint} = data;
      state.checkpoints = state.checkpoints.filter((one) => one.folder !== checkpoint.folder);
      state.checkpoints.push(checkpoint);
      state.checkpoints.sort((a, b) => a.iteration - b.iteration);
    } else if (type === "alarm") {
      const {job: _, time, ...alarm} = data;
      job.alarms = [...job.alarms.filter((one) => one.number !== alarm.number), alarm].sort((a, b) => a.number - b.number);
    } else if (type === "log") {
      logs.add(data);
      return;
    }
    drawSoon();
  }).catch((error) => toast(error.message, "bad"));
}

// Other runs of the same kind, to be seen beside this one.
async function drawCompare(box, job) {
  const page = await getJson("/api/v1/jobs?limit=1000");
  const others = page.items.filter((one) => one.kind === job.kind && one.id !== job.id && !one.parent);
  if (others.length === 0) return;
  const pick = element("select", {id: "compare-with", onchange: () => {
    if (pick.value) location.hash = `#/compare/${encodeURIComponent(job.id)}/${encodeURIComponent(pick.value)}`;
  }}, element("option", {value: ""}, "choose a run"), ...others.reverse().map((one) => element("option", {value: one.id}, `${one.id} (${one.state})`)));
  replace(box, element("label", {for: "compare-with"}, "Beside"), pick);
}
