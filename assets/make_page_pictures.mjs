// Pictures of the report and of the server's page, from headless Chromium (DevTools protocol, Node 22 or 20 with
// --experimental-websocket).
//
//     burn-peft train --no-tui --max-steps 120 --set train.eval_steps=30 --output runs/picture
//     burn-peft serve --adapter places=runs/picture &
//     node assets/make_page_pictures.mjs runs/picture/report.html http://127.0.0.1:8000 runs/pictures
//
// Writes report.png and serve.png (a question to the base and to the adapter, side by side), and beside them, in the
// folder check/, both pages in light and dark at the width of a phone and of a desktop, to look at. Fails if a page
// reports an error or asks for anything on another host.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [report, server, out] = process.argv.slice(2);
const CARD = "name: The Grey Heron | eatType: pub | food: vegetarian | area: old town\n";
const DESKTOP = [1120, 780];
const PHONE = [390, 844];

const profile = mkdtempSync(join(tmpdir(), "pictures-"));
const port = 9333;
const chrome = spawn("chromium", ["--headless=new", "--no-sandbox", "--hide-scrollbars", `--remote-debugging-port=${port}`,
  `--user-data-dir=${profile}`, "about:blank"], { stdio: "ignore" });
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function connect() {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      const pages = await (await fetch(`http://127.0.0.1:${port}/json`)).json();
      const page = pages.find((page) => page.type === "page");
      if (page) return new WebSocket(page.webSocketDebuggerUrl);
    } catch {
      // It has not started yet.
    }
    await sleep(200);
  }
  throw new Error("chromium does not answer");
}

const socket = await connect();
await new Promise((done) => (socket.onopen = done));
const waiting = new Map();
const errors = [];
socket.onmessage = ({ data }) => {
  const { id, method, params, result } = JSON.parse(data);
  if (id) waiting.get(id)(result);
  if (method === "Runtime.exceptionThrown" || method === "Log.entryAdded") errors.push(JSON.stringify(params));
  if (method === "Network.requestWillBeSent") {
    const { url } = params.request;
    if (![`file://${resolve(report)}`, "data:", server].some((own) => url.startsWith(own))) errors.push(url);
  }
};
let last = 0;
const send = (method, params = {}) =>
  new Promise((done) => {
    waiting.set(++last, done);
    socket.send(JSON.stringify({ id: last, method, params }));
  });
const evaluate = async (expression) =>
  (await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true })).result.value;
const press = async (key, code, number, modifiers = 0) => {
  const text = key === "Enter" ? "\r" : undefined;
  for (const type of ["keyDown", "keyUp"])
    await send("Input.dispatchKeyEvent", { type, key, code, windowsVirtualKeyCode: number, modifiers, text });
};
const look = async ([width, height], scheme, name) => {
  await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  await sleep(300);
  const picture = await send("Page.captureScreenshot", { format: "png" });
  writeFileSync(join(out, name), Buffer.from(picture.data, "base64"));
};
const lookEverywhere = async (name) => {
  for (const [size, width] of [[DESKTOP, "desktop"], [PHONE, "phone"]])
    for (const scheme of ["light", "dark"]) await look(size, scheme, `check/${name}-${width}-${scheme}.png`);
};

mkdirSync(join(out, "check"), { recursive: true });
for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);

await send("Page.navigate", { url: `file://${resolve(report)}` });
await sleep(1000);
await look([1120, 1010], "light", "report.png");
await lookEverywhere("report");

await send("Emulation.setDeviceMetricsOverride", { width: DESKTOP[0], height: 620, deviceScaleFactor: 1, mobile: false });
await send("Page.navigate", { url: `${server}/` });
await sleep(1000);
await evaluate(`document.getElementById("mode").value = "text";
  document.getElementById("max_tokens").value = 60;
  document.getElementById("temperature").value = 0`);
await press("c", "KeyC", 67, 1); // Alt+C: two models side by side
await evaluate(`document.getElementById("message").focus()`);
await send("Input.insertText", { text: CARD });
await press("Enter", "Enter", 13);
await sleep(300);
for (let i = 0; i < 300 && (await evaluate(`document.querySelector(".running") !== null`)); i++) await sleep(100);
await look([1120, 620], "light", "serve.png");
await lookEverywhere("serve");

chrome.kill();
await sleep(300);
rmSync(profile, { recursive: true, force: true });
if (errors.length) {
  console.error(errors.join("\n"));
  process.exit(1);
}
