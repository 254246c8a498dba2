// The page of `burn-peft serve`. It talks to the server that it came from, and to nothing else.
"use strict";

const $ = (id) => document.getElementById(id);
const panes = [];
let models = [];

class Pane {
  constructor(preferred) {
    const part = $("pane").content.cloneNode(true);
    this.root = part.querySelector(".pane");
    this.select = part.querySelector("select");
    this.note = part.querySelector(".note");
    this.log = part.querySelector(".log");
    this.turns = [];
    $("panes").append(part);
    this.offer(preferred);
  }

  offer(preferred) {
    const chosen = preferred ?? this.select.value;
    this.select.replaceChildren(...models.map((name) => new Option(name, name)));
    if (models.includes(chosen)) this.select.value = chosen;
  }

  clear() {
    this.stop();
    this.turns = [];
    this.log.replaceChildren();
    this.note.value = "";
  }

  stop() {
    this.running?.abort();
  }

  show(kind, text) {
    const turn = document.createElement("div");
    turn.className = `turn ${kind}`;
    turn.textContent = text;
    this.log.append(turn);
    this.log.scrollTop = this.log.scrollHeight;
    return turn;
  }

  async send(text) {
    this.show("user", text);
    const turn = this.show("assistant running", "");
    const asked = this.turns.length;
    this.turns.push({ role: "user", content: text });
    this.running = new AbortController();
    const began = performance.now();
    let first = null;
    let answer = "";
    try {
      for await (const event of stream(this.request(text), this.running.signal)) {
        if (event.error) throw new Error(event.error.message);
        const choice = event.choices[0];
        const part = choice?.delta?.content ?? choice?.text ?? "";
        if (part) {
          first ??= performance.now() - began;
          const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
          answer += part;
          turn.textContent = answer;
          if (atEnd) this.log.scrollTop = this.log.scrollHeight;
        }
        if (event.usage) this.tell(event.usage, first, performance.now() - began);
      }
      this.turns.push({ role: "assistant", content: answer });
    } catch (error) {
      if (error.name === "AbortError") {
        this.turns.push({ role: "assistant", content: answer });
        this.note.value = "stopped";
      } else {
        this.turns.length = asked;
        turn.classList.add("error");
        turn.textContent = answer ? `${answer}\n\n${error.message}` : error.message;
      }
    } finally {
      turn.classList.remove("running");
      this.running = null;
    }
  }

  tell(usage, first, whole) {
    const rate = usage.completion_tokens / (whole / 1000);
    this.note.value =
      `${usage.completion_tokens} tokens, first after ${Math.round(first ?? whole)} ms, ${rate.toFixed(1)} tokens/s`;
  }

  request(text) {
    const body = { model: this.select.value, stream: true, stream_options: { include_usage: true } };
    for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
      const value = $(name).value;
      if (value !== "") body[name] = Number(value);
    }
    if ($("mode").value === "text") {
      body.max_tokens ??= 128;
      return ["v1/completions", { ...body, prompt: text }];
    }
    const system = $("system").value;
    const before = system ? [{ role: "system", content: system }] : [];
    return ["v1/chat/completions", { ...body, messages: [...before, ...this.turns] }];
  }
}

function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

// The events of a streamed answer.
async function* stream([path, body], signal) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `status ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function listModels() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    models = answer.data.filter((model) => model.task === "generate").map((model) => model.id);
    // An adapter first: the base is what it is compared with.
    const adapter = models.find((name) => name !== "base");
    panes[0].offer(panes[0].select.value || adapter || "base");
    panes[1]?.offer(panes[1].select.value || "base");
  } catch (error) {
    panes[0].show("error", `${error.message} (Settings has a field for a key)`);
  }
}

function compare() {
  const on = $("compare").getAttribute("aria-pressed") !== "true";
  $("compare").setAttribute("aria-pressed", String(on));
  if (on) {
    panes.push(new Pane("base"));
  } else {
    const pane = panes.pop();
    pane.stop();
    pane.root.remove();
  }
}

function toggleSettings() {
  const hidden = !$("settings").hidden;
  $("settings").hidden = hidden;
  $("settings-button").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) $("temperature").focus();
}

function clear() {
  panes.forEach((pane) => pane.clear());
  $("message").focus();
}

async function send() {
  const text = $("message").value;
  if (!text.trim() || panes.some((pane) => pane.running)) return;
  $("message").value = "";
  $("send").textContent = "Stop";
  await Promise.all(panes.map((pane) => pane.send(text)));
  $("send").textContent = "Send";
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (panes.some((pane) => pane.running)) panes.forEach((pane) => pane.stop());
  else send();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") panes.forEach((pane) => pane.stop());
  const act = event.altKey && { c: compare, n: clear, s: toggleSettings }[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
  }
});
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", listModels);
$("compare").addEventListener("click", compare);
$("clear").addEventListener("click", clear);
$("settings-button").addEventListener("click", toggleSettings);

panes.push(new Pane());
listModels();
