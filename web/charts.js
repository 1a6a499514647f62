// Curves over images: colours that the colour-blind can tell apart, dashes beside them, alarms and stages on the axis.
import {count, element, figure, replace} from "./dom.js";

const drawn = new Set();  // every chart on the page

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Okabe and Ito's palette, darker or lighter with the theme (style.css); after six colours the dashes differ.
const numColors = 6;
const dashes = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
const lineOf = (index) => ({color: styleOf(`--line-${index % numColors}`), dash: dashes[Math.floor(index / numColors) % dashes.length]});

const short = new Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 3});

// Upright lines: where a stage begins, and where an alarm was raised.
const marks = {
  id: "marks",
  afterDatasetsDraw(chart, _, options) {
    const {ctx, chartArea: area, scales: {x}} = chart;
    ctx.save();
    ctx.font = `11px ${styleOf("--sans")}`;
    let free = area.left;  // no name is written over another
    for (const stage of options.stages ?? []) {
      const at = x.getPixelForValue(stage.images);
      if (at < area.left - 1 || at > area.right) continue;
      ctx.strokeStyle = ctx.fillStyle = styleOf("--muted");
      ctx.globalAlpha = 0.6;
      line(ctx, at, area, []);
      ctx.globalAlpha = 1;
      const width = ctx.measureText(stage.name).width;
      if (at + 4 < free || at + 4 + width > area.right) continue;
      free = at + width + 12;
      ctx.lineWidth = 3;
      ctx.strokeStyle = styleOf("--card");
      ctx.strokeText(stage.name, at + 4, area.top + 10);
      ctx.lineWidth = 1;
      ctx.fillText(stage.name, at + 4, area.top + 10);
    }
    for (const alarm of options.alarms ?? []) {
      const at = x.getPixelForValue(alarm.images);
      if (at < area.left - 1 || at > area.right + 1) continue;
      ctx.strokeStyle = ctx.fillStyle = styleOf("--bad");
      line(ctx, at, area, [3, 3]);
      ctx.beginPath();
      ctx.moveTo(at, area.bottom);
      ctx.lineTo(at - 5, area.bottom + 9);
      ctx.lineTo(at + 5, area.bottom + 9);
      ctx.fill();
    }
    ctx.restore();
  },
};

function line(ctx, at, area, dash) {
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(at, area.top);
  ctx.lineTo(at, area.bottom);
  ctx.stroke();
  ctx.setLineDash([]);
}

export function redrawAll() {
  for (const chart of drawn) chart.draw();
}

// A figure of one or more curves. curves: [{name, points: [{x, y}]}]; the arrays are kept and may grow.
export class CurveFigure {
  constructor(title, hint = "") {
    this.title = title;
    this.curves = [];
    this.hidden = new Set();
    this.stages = [];
    this.alarms = [];
    this.log = false;
    this.canvas = element("canvas", {role: "img", "aria-label": title});
    this.legend = element("div", {class: "legend", role: "group", "aria-label": `${title}: curves`});
    this.table = element("tbody");
    this.logButton = element("button", {class: "quiet small", type: "button", "aria-pressed": "false", onclick: () => {
      this.log = !this.log;
      this.logButton.setAttribute("aria-pressed", String(this.log));
      this.draw();
    }}, "log scale");
    this.node = element("figure", {class: "card curve"},
      element("figcaption", {}, element("h3", {}, title), hint ? element("p", {class: "hint"}, hint) : null, this.logButton),
      this.legend,
      element("div", {class: "canvas"}, this.canvas),
      element("details", {class: "numbers"}, element("summary", {}, "In numbers"),
        element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `${title} in numbers`},
          element("table", {},
            element("thead", {}, element("tr", {}, ...["Curve", "Last", "Lowest", "Highest", "At images"].map((name) => element("th", {scope: "col"}, name)))),
            this.table))));
    drawn.add(this);
  }

  set(curves, {stages = this.stages, alarms = this.alarms} = {}) {
    this.curves = curves;
    this.stages = stages;
    this.alarms = alarms;
    this.draw();
  }

  draw() {
    const shown = this.curves.filter((curve) => curve.points.length > 0);
    this.node.hidden = shown.length === 0;
    if (shown.length === 0 || !this.canvas.isConnected) return;
    this.drawLegend(shown);
    this.drawNumbers(shown);
    const text = styleOf("--muted");
    const grid = styleOf("--grid");
    const datasets = shown.map((curve, index) => {
      const {color, dash} = lineOf(curve.line ?? index);
      return {
        label: curve.name, data: curve.points, parsing: false, borderColor: color, backgroundColor: color, borderDash: dash,
        borderWidth: 1.75, pointRadius: curve.points.length <= 40 ? 2.5 : 0, pointHitRadius: 8, tension: 0, hidden: this.hidden.has(curve.name),
      };
    });
    const options = {
      animation: false, responsive: true, maintainAspectRatio: false, normalized: true,
      interaction: {mode: "nearest", axis: "x", intersect: false},
      plugins: {
        legend: {display: false},
        marks: {stages: this.stages, alarms: this.alarms},
        tooltip: {
          callbacks: {
            title: (items) => items.length > 0 ? `${count(items[0].parsed.x)} images` : "",
            label: (item) => `${item.dataset.label}: ${figure(item.parsed.y)}`,
          },
        },
      },
      scales: {
        x: {type: "linear", bounds: "data", ticks: {color: text, maxTicksLimit: 7, callback: (value) => short.format(value)}, grid: {color: grid},
            title: {display: true, text: "images", color: text}},
        y: {type: this.log ? "logarithmic" : "linear", ticks: {color: text, maxTicksLimit: 6, callback: (value) => figure(value)}, grid: {color: grid}},
      },
    };
    if (!this.chart) {
      this.chart = new Chart(this.canvas, {type: "line", data: {datasets}, options, plugins: [marks]});
      return;
    }
    this.chart.data.datasets = datasets;
    this.chart.options = options;
    this.chart.update("none");
  }

  drawLegend(shown) {
    const names = shown.map((curve) => curve.name).join("|") + document.documentElement.dataset.theme + [...this.hidden].join("|");
    if (names === this.drawnNames) return;
    this.drawnNames = names;
    replace(this.legend, ...shown.map((curve, index) => {
      const {color, dash} = lineOf(curve.line ?? index);
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 24 8");
      svg.setAttribute("width", "24");
      svg.setAttribute("height", "8");
      svg.setAttribute("aria-hidden", "true");
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", "M0 4H24");
      path.setAttribute("stroke", color);
      path.setAttribute("stroke-width", "3");
      path.setAttribute("stroke-dasharray", dash.join(" "));
      svg.append(path);
      const on = !this.hidden.has(curve.name);
      return element("button", {type: "button", class: "key", "aria-pressed": String(on), title: on ? "Hide this curve" : "Show this curve", onclick: () => {
        if (!this.hidden.delete(curve.name)) this.hidden.add(curve.name);
        const at = [...this.legend.children].indexOf(document.activeElement);
        this.draw();
        this.legend.children[at]?.focus();
      }}, svg, curve.name);
    }));
  }

  drawNumbers(shown) {
    const words = [];
    replace(this.table, ...shown.map((curve) => {
      let low = Infinity;
      let high = -Infinity;
      for (const {y} of curve.points) {
        low = Math.min(low, y);
        high = Math.max(high, y);
      }
      const last = curve.points[curve.points.length - 1];
      words.push(`${curve.name} ${figure(last.y)}`);
      return element("tr", {}, element("th", {scope: "row"}, curve.name),
        ...[figure(last.y), figure(low), figure(high), count(last.x)].map((text) => element("td", {}, text)));
    }));
    this.canvas.setAttribute("aria-label", `${this.title} against images; last values: ${words.join(", ")}`);
  }

  destroy() {
    drawn.delete(this);
    this.chart?.destroy();
  }
}

// The points of a job's series as they are drawn, by key; events add to them.
export class Curves {
  constructor(series) {
    this.byKey = new Map();
    for (const one of series) {
      this.byKey.set(one.key, one.points.map((point) => ({x: point.images, y: point.value, stage: point.stage, iteration: point.iteration})));
    }
  }
  add(report) {
    for (const [key, value] of Object.entries(report.values)) {
      if (!this.byKey.has(key)) this.byKey.set(key, []);
      const points = this.byKey.get(key);
      // A resumed attempt repeats what it has lost: what its stage had from there on is overwritten.
      const last = () => points[points.length - 1];
      while (points.length > 0 && last().stage === report.stage && last().iteration >= report.iteration) points.pop();
      points.push({x: report.images, y: value, stage: report.stage, iteration: report.iteration});
      // Twice what was asked for at first is still drawn at once; then every second one goes.
      if (points.length > 4000) this.byKey.set(key, points.filter((_, index) => index % 2 === 0 || index > 3000));
    }
  }
  stages() {
    const first = new Map();
    for (const [key, points] of this.byKey) {
      if (key.startsWith("eval.")) continue;
      for (const {stage, x} of points) {
        if (!first.has(stage) || first.get(stage) > x) first.set(stage, x);
      }
    }
    return first.size < 2 ? [] : [...first].map(([name, images]) => ({name, images}));
  }
  // What belongs together, and what people look at first, first.
  groups() {
    const groups = {losses: [], frechet: [], quality: [], health: [], speed: []};
    for (const [key, points] of this.byKey) {
      const group = key === "eval.frechet" || key === "eval.fid" ? "frechet"
        : /^eval\.(class_accuracy|class_balance|precision|recall|inception_score|kid)$/.test(key) ? "quality"
        : key.startsWith("eval.") ? null
        : key.startsWith("loss") || key.endsWith("_loss") ? "losses"
        : key === "images_per_second" ? "speed"
        : key === "accuracy" ? "quality" : "health";
      if (group === null || (key === "eval.fid" && this.byKey.has("eval.frechet"))) continue;
      groups[group].push({name: key.replace(/^eval\./, "").replaceAll("_", " "), key, points});
    }
    return groups;
  }
}
