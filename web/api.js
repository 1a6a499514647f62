// The coordinator's REST and its events; the token, where one is asked for, goes in a header.

const tokenKey = "onestep-token";

function headers(more = {}) {
  const token = sessionStorage.getItem(tokenKey);
  return token ? {Authorization: `Bearer ${token}`, ...more} : more;
}

// One dialog for all requests that are refused at the same time.
let asking = null;
function askForToken(problem) {
  if (asking) return asking;
  const dialog = document.getElementById("token-dialog");
  const field = document.getElementById("token-field");
  const note = document.getElementById("token-problem");
  note.hidden = !problem;
  note.textContent = problem ?? "";
  asking = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(tokenKey, field.value.trim());
      field.value = "";
      asking = null;
      resolve();
    }, {once: true});
  });
  dialog.showModal();
  return asking;
}

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function send(path, options = {}, more = {}) {
  while (true) {
    const had = sessionStorage.getItem(tokenKey);
    let response;
    try {
      response = await fetch(path, {...options, headers: headers(more), cache: "no-cache"});
    } catch (error) {
      if (!options.signal?.aborted) tellConnection("away");
      throw error;
    }
    tellConnection("live");
    if (response.status === 401) {
      if (sessionStorage.getItem(tokenKey) === had) await askForToken(had ? "That token is not known, or has expired." : "");
      continue;
    }
    if (response.ok) return response;
    let detail = `${response.status} ${response.statusText}`;
    try {
      detail = (await response.json()).detail ?? detail;
    } catch {
      // not from the coordinator: the status has to do
    }
    throw new ApiError(response.status, detail);
  }
}

export const getJson = async (path) => (await send(path)).json();
export const post = async (path) => (await send(path, {method: "POST"})).json();
export const getText = async (path) => {
  const response = await send(path);
  return {text: await response.text(), next: response.headers.get("X-Next-Offset"), attempt: response.headers.get("X-Attempt")};
};
// A URL for an <img>, which could not send a token itself; to be revoked by the caller.
export const getImage = async (path) => URL.createObjectURL(await (await send(path)).blob());

export const jobPath = (id, rest = "") => `/api/v1/jobs/${encodeURIComponent(id)}${rest}`;

const listeners = new Set();
export function onConnection(listener) {
  listeners.add(listener);
}
function tellConnection(state) {
  for (const listener of listeners) listener(state);
}

const quietLimit = 40000;  // ms; the coordinator says something every 15 s

// Follows the events at `path` after `lastId` for as long as `signal` is not aborted; connects again after a break and goes on
// after the last event it has heard. onEvent(type, data).
export async function follow(path, lastId, signal, onEvent) {
  let wait = 500;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop, {once: true});
    let timer = setTimeout(stop, quietLimit);
    try {
      const response = await send(path, {signal: attempt.signal}, lastId === null ? {} : {"Last-Event-ID": lastId});
      wait = 500;
      for await (const event of events(response.body, () => {
        clearTimeout(timer);
        timer = setTimeout(stop, quietLimit);
      })) {
        if (event.id !== null) lastId = event.id;
        onEvent(event.type, JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted) break;
      // The data folder is another one: what this page shows is of the past.
      if (error instanceof ApiError && error.status === 409) lastId = null;
      if (error instanceof ApiError && error.status === 404) throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      attempt.abort();
    }
    if (signal.aborted) break;
    tellConnection("away");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 5000);
  }
}

async function* events(body, onBytes) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const {value, done} = await reader.read();
    if (done) return;
    onBytes();
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const event = {id: null, type: "message", data: null};
      for (const line of rest.slice(0, end).split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        if (line.startsWith("event: ")) event.type = line.slice(7);
        if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      rest = rest.slice(end + 2);
      if (event.data !== null) yield event;
    }
  }
}
