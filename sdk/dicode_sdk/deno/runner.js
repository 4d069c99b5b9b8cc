// The life of a Deno task's process: meet the server, run the script, tell how it ended.
//
// A script with a `main` (its default export, or an exported function of that name) ends when what
// main gives is there; calls to the server are waited for, timers and open sockets are not. A plain
// script ends as any Deno program does: when nothing is left to wait for.

import { names } from "./api.js";
import { Channel, grouped } from "./channel.js";
import { failure, fromThrown } from "./failure.js";
import { MAX_RETURN, NotJson, plain } from "./json.js";
import { complain, takeConsole } from "./log.js";

const [path, script, waits] = Deno.args;
const folder = new URL(".", script).href;
const exit = Deno.exit;
const serverPromise = (waits === "waits" ? called() : Promise.resolve())
  .then(() => Channel.open(path));
let channel;
let module = null;
let inMain = false;
let ending = false;

/** Wait for the run this process is to be: its input tells of it, with its environment. */
async function called() {
  const told = await new Response(Deno.stdin.readable).text();
  if (told === "") exit(0);
  for (const [name, value] of Object.entries(JSON.parse(told).env)) Deno.env.set(name, value);
}

/** Tell the server and end the process. The first call decides. */
async function end(value, error) {
  if (ending) {
    // Too late to change the end, but not to be seen.
    if (error?.traceback) complain(error.traceback);
    return;
  }
  ending = true;
  if (error === null) await channel.idle();
  else if (error.traceback) complain(error.traceback);
  await channel.finish({ return: value, error });
  exit(error === null ? 0 : 1);
}

function fail(thrown) {
  return end(null, fromThrown(thrown, folder));
}

function succeed(value) {
  let text = null;
  try {
    if (value !== undefined && value !== null) text = JSON.stringify(plain(value));
  } catch (thrown) {
    if (!(thrown instanceof NotJson)) return fail(thrown);
    const hint = thrown.hint ? `return ${thrown.hint} there` : null;
    const what = `the return value cannot be JSON: ${thrown.message}`;
    return end(null, failure("return_not_json", what, { hint }));
  }
  const size = text === null ? 0 : new TextEncoder().encode(text).length;
  if (size <= MAX_RETURN) return end(text, null);
  const what = `the return value is ${grouped(size)} bytes as JSON, more than the ` +
    `${grouped(MAX_RETURN)} allowed`;
  const hint = "return a summary; keep the rest with kv.set(), output.file() or a file";
  return end(null, failure("return_too_large", what, { hint }));
}

/** The value of a script without main: its default export, an export or a global `result`. */
function resultOf() {
  const own = typeof module.default === "function" ? undefined : module.default;
  return own ?? module.result ?? globalThis.result;
}

function mainOf() {
  if (typeof module.default === "function") return module.default;
  return typeof module.main === "function" && module.default === undefined ? module.main : null;
}

/** Nothing is left to wait for: the end of a plain script, a mistake of a main. */
function onEmpty(event) {
  if (ending || module === null) return;
  event.preventDefault();
  if (!inMain) {
    succeed(resultOf());
    return;
  }
  end(null, failure("script_error", "main() waits for a promise that nothing is left to settle", {
    hint: "look for a callback that is never called, or a promise whose resolve is never used",
  }));
}

async function run() {
  channel = await serverPromise;
  channel.onSuspended = () => end(null, null);
  const given = names(channel, await channel.start());
  takeConsole();
  for (const [name, value] of Object.entries({ ...given, result: undefined })) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
  }
  addEventListener("error", (event) => {
    event.preventDefault();
    fail(event.error ?? new Error(event.message));
  });
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    fail(event.reason);
  });
  addEventListener("beforeunload", onEmpty);
  try {
    // Computed, so that Deno holds the script's imports to its permissions: a literal would join
    // the initial graph, which may read any file.
    module = await import(script);
    const main = mainOf();
    if (main === null) return;
    inMain = true;
    const value = await main(given);
    await succeed(value ?? resultOf());
  } catch (thrown) {
    await fail(thrown);
  }
}

run();
