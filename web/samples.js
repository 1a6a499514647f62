// The same noise through every checkpoint: a picture, a slider, and what is known of the checkpoint.
import {getImage} from "./api.js";
import {count, element, figure, replace, setText} from "./dom.js";

let number = 0;

export class SampleTimeline {
  constructor(title = "Checkpoint") {
    this.samples = [];
    this.images = new Map();  // url -> object URL
    this.onmove = null;
    this.picture = element("img", {alt: "", class: "sample", decoding: "async"});
    this.caption = element("p", {class: "sample-caption", "aria-live": "polite"});
    const id = `samples-${number++}`;
    this.slider = element("input", {type: "range", id, min: "0", max: "0", value: "0", step: "1", oninput: () => this.show(true)});
    this.ends = element("div", {class: "slider-ends", "aria-hidden": "true"});
    this.play = element("button", {type: "button", class: "small", onclick: () => this.togglePlay()}, "Play");
    this.frame = element("div", {class: "frame"}, this.picture);
    this.node = element("div", {class: "card samples"}, this.frame,
      element("div", {class: "sample-side"}, this.caption, element("label", {for: id}, title), this.slider, this.ends, this.play,
        element("p", {class: "hint"}, "The same noise and the same classes at every checkpoint. Arrow keys move the slider.")));
  }

  get at() {
    return this.samples[Number(this.slider.value)];
  }

  set(samples) {
    const wasLast = Number(this.slider.value) >= this.samples.length - 1;
    this.samples = samples;
    this.slider.max = String(Math.max(0, samples.length - 1));
    if (wasLast) this.slider.value = this.slider.max;
    this.slider.disabled = samples.length < 2;
    this.frame.hidden = samples.length === 0;
    if (samples.length === 0) setText(this.caption, "No judged checkpoints.");
    this.play.hidden = samples.length < 2;
    replace(this.ends, element("span", {}, samples.length > 0 ? count(samples[0].images) : ""),
      element("span", {}, samples.length > 1 ? `${count(samples[samples.length - 1].images)} images` : ""));
    this.show(false);
  }

  // The checkpoint nearest to so many images.
  moveTo(images) {
    if (this.samples.length === 0) return;
    let best = 0;
    this.samples.forEach((sample, index) => {
      if (Math.abs(sample.images - images) < Math.abs(this.samples[best].images - images)) best = index;
    });
    this.slider.value = String(best);
    this.show(false);
  }

  async show(byHand) {
    const sample = this.at;
    if (!sample) return;
    const text = `${count(sample.images)} images, iteration ${count(sample.iteration)}`;
    replace(this.caption, element("strong", {}, text), element("span", {}, sample.frechet === null ? "not judged" : `Fréchet distance ${figure(sample.frechet)}`));
    this.slider.setAttribute("aria-valuetext", `${text}, Fréchet distance ${figure(sample.frechet)}`);
    if (byHand) this.onmove?.(sample);
    const url = await this.load(sample.url);
    if (this.at !== sample || !url) return;  // moved on meanwhile
    this.picture.src = url;
    this.picture.alt = `Samples of the generator after ${text}`;
  }

  async load(url) {
    if (!this.images.has(url)) this.images.set(url, getImage(url).catch(() => null));
    return this.images.get(url);
  }

  togglePlay() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = null;
      setText(this.play, "Play");
      return;
    }
    setText(this.play, "Stop");
    this.timer = setInterval(() => {
      this.slider.value = String((Number(this.slider.value) + 1) % this.samples.length);
      this.show(true);
    }, 700);
  }

  async destroy() {
    clearInterval(this.timer);
    for (const made of this.images.values()) {
      const url = await made;
      if (url) URL.revokeObjectURL(url);
    }
  }
}
