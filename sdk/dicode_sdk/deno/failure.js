// What an error of a script tells its reader: where in the task, and how it came there.

import { NoRetryError } from "./api.js";
import { DicodeError } from "./channel.js";
import { write } from "./log.js";

const MAX_MESSAGE = 4000;
const MAX_TRACE = 32_000;
// Codes of refused calls that say more of a run's end than that its script failed.
const TOLD_APART = ["output_too_large", "declined", "ask_mismatch"];
// Deno writes a URL in a stack as it is or with its escapes undone, so a path may hold spaces.
const PLACE = /(file:\/\/.+?):(\d+):(\d+)\)?$/;
const OURS = new URL(".", import.meta.url).href;

/** Make the error of a finish frame. */
export function failure(code, message, more = {}) {
  const short = message.length > MAX_MESSAGE ? message.slice(0, MAX_MESSAGE) + " …" : message;
  return { code, message: short.toWellFormed(), hint: null, ...more };
}

/** Make the error of a finish frame from whatever was thrown. `folder` is a URL ending in `/`. */
export function fromThrown(thrown, folder) {
  const trace = describe(thrown, folder, new Set());
  const hint = hintFor(thrown);
  if (hint !== null && isRefusal(thrown)) write("security", `blocked: ${thrown.message.split(",")[0]} - ${hint}`);
  const told = thrown instanceof DicodeError && TOLD_APART.includes(thrown.code);
  const code = told ? thrown.code : thrown instanceof NoRetryError ? "no_retry" : "script_error";
  return failure(code, headline(thrown, folder), {
    hint,
    ...place(thrown, folder),
    traceback: shorten(trace).toWellFormed(),
  });
}

function headline(thrown, folder) {
  if (!(thrown instanceof Error)) return `the script threw ${shown(thrown)}`;
  // Deno says "TypeError: SyntaxError: …" and adds the excerpt and the place, which go elsewhere.
  const first = String(thrown.message).split("\n", 1)[0];
  const text = /^[A-Z]\w*Error: /.test(first) ? first : `${thrown.name}: ${first}`;
  return text.replace(/ at file:\/\/.+?:\d+:\d+$/, "").replaceAll(folder, "").replaceAll(decode(folder), "");
}

function shown(value) {
  try {
    return Deno.inspect(value, { depth: 2 });
  } catch {
    return "something that cannot be shown";
  }
}

function place(thrown, folder) {
  for (const line of stackOf(thrown).split("\n")) {
    const found = PLACE.exec(line.trim());
    if (found && isBelow(found[1], folder)) {
      const file = decode(found[1]).slice(decode(folder).length);
      return { file, line: Number(found[2]) };
    }
  }
  if (thrown instanceof AggregateError && thrown.errors.length > 0) {
    return place(thrown.errors[0], folder);
  }
  return thrown instanceof Error && thrown.cause !== undefined ? place(thrown.cause, folder) : {};
}

function stackOf(thrown) {
  return thrown instanceof Error && typeof thrown.stack === "string" ? thrown.stack : "";
}

function describe(thrown, folder, seen) {
  if (seen.has(thrown) || seen.size > 10) return "";
  seen.add(thrown);
  if (!(thrown instanceof Error)) return `Uncaught ${shown(thrown)}\n`;
  const kept = (stackOf(thrown) || String(thrown))
    .split("\n")
    .filter((line) => !isFrameOf(line, OURS) && !/^\s+at .*\b(ext|node):/.test(line));
  let text = kept.map((line) => named(line, folder)).join("\n") + "\n";
  for (const inner of thrown instanceof AggregateError ? thrown.errors : []) {
    text += "One of: " + describe(inner, folder, seen);
  }
  if (thrown.cause !== undefined) text += "Caused by: " + describe(thrown.cause, folder, seen);
  return text;
}

function isFrameOf(line, root) {
  const found = PLACE.exec(line.trim());
  return found !== null && isBelow(found[1], root);
}

function isBelow(url, root) {
  return decode(url).startsWith(decode(root));
}

function named(line, folder) {
  const plain = decode(folder);
  if (!line.includes(folder) && !line.includes(plain)) return line;
  return decode(line.replaceAll(folder, "").replaceAll(plain, ""));
}

function decode(text) {
  try {
    return decodeURI(text);
  } catch {
    return text;
  }
}

function shorten(text) {
  if (text.length <= MAX_TRACE) return text;
  const half = MAX_TRACE / 2;
  return `${text.slice(0, half)}\n… [${text.length - MAX_TRACE} characters left out]\n` +
    text.slice(-half);
}

const UNSEEN = /^Failed to spawn '(.+)': entity not found/;

function isRefusal(thrown) {
  return thrown instanceof Error &&
    (REFUSED.test(thrown.message) || (thrown instanceof Deno.errors.NotFound && UNSEEN.test(thrown.message)));
}

const REFUSED = /^Requires (\w+) access(?: to (?:"(.+?)"|<(\w+)>))?/;

function hintFor(thrown) {
  if (thrown instanceof DicodeError) return thrown.hint ?? null;
  if (!(thrown instanceof Error)) return null;
  const refused = REFUSED.exec(thrown.message);
  if (refused && (thrown instanceof Deno.errors.NotCapable || thrown instanceof TypeError)) {
    return grant(refused[1], refused[2]);
  }
  const unseen = UNSEEN.exec(thrown.message);
  if (unseen && thrown instanceof Deno.errors.NotFound) {
    return `there is no such program, or it is not granted: ${grant("run", unseen[1])}`;
  }
  const bare = /^Import "([^"]+)" not a dependency/.exec(thrown.message);
  if (bare) return `write the import as "npm:${bare[1]}", or "jsr:${bare[1]}"`;
  if (thrown instanceof RangeError && thrown.message === "Maximum call stack size exceeded") {
    return "a function calls itself without an end";
  }
  return null;
}

const FIELDS = { read: "fs", write: "fs" };

/** Give the line of task.yaml that grants what Deno refused. */
function grant(kind, what) {
  if (what === undefined) return `list each one by name in task.yaml: permissions.${FIELDS[kind] ?? kind}`;
  // As JSON: a name with quotes or line ends must not make up lines of its own.
  const name = JSON.stringify(what);
  switch (kind) {
    case "read":
      return `add to task.yaml: permissions.fs: [{path: ${name}, permission: r}]`;
    case "write":
      return `add to task.yaml: permissions.fs: [{path: ${name}, permission: rw}]`;
    case "net":
      return `add to task.yaml: permissions.net: [${name}] (private addresses must be listed ` +
        "themselves, also beside \"*\")";
    case "run":
    case "sys":
    case "env":
      return `add to task.yaml: permissions.${kind}: [${name}]`;
    case "import":
      return `modules of other hosts are fetched when the task is registered, from hosts in ` +
        `permissions.net: [${name}]`;
    default:
      return "tasks cannot be given this access";
  }
}
