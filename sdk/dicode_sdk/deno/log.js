// Log lines with a level, on stdout and in order. A mark tells the server's own reader which lines
// carry one; what else a task writes is `info` on stdout and `warn` on stderr.

const MARK = "\x1e";
const MOST = 60_000;
const CUT_SHORT = MOST / 6;
const encoder = new TextEncoder();
const inspect = Deno.inspect;
const stdout = Deno.stdout;
const stderr = Deno.stderr;

/** Write all of `text`, at once. */
function put(stream, text) {
  const data = encoder.encode(text);
  try {
    for (let sent = 0; sent < data.length;) sent += stream.writeSync(data.subarray(sent));
  } catch {
    // Nobody reads any more; a task does not fail for its log.
  }
}

/** Write one message with its level. */
export function write(level, message) {
  let line = JSON.stringify({ l: level, m: shorten(message, MOST) });
  if (encoder.encode(line).length > MOST + 1024) {
    // Escapes made it longer: a line that the server had to cut would lose its level.
    line = JSON.stringify({ l: level, m: shorten(message, CUT_SHORT) });
  }
  put(stdout, `${MARK}${line}\n`);
}

/** Write to stderr as it is. */
export function complain(text) {
  put(stderr, text.endsWith("\n") ? text : text + "\n");
}

function shorten(message, most) {
  if (message.length * 3 <= most) return message;
  const data = encoder.encode(message);
  if (data.length <= most) return message;
  const kept = new TextDecoder().decode(data.subarray(0, most)).replace(/\uFFFD+$/, "");
  return `${kept} … [${String(data.length).replace(/\B(?=(\d{3})+$)/g, ",")} bytes, cut]`;
}

/** Join what was logged as `console.log` does, with its `%s %d %i %f %j %o %O %c`. */
export function format(parts) {
  let rest = parts;
  let text = "";
  if (typeof parts[0] === "string") {
    rest = parts.slice(1);
    text = parts[0].includes("%") ? expand(parts[0], rest) : parts[0];
  } else if (parts.length > 0) {
    rest = parts.slice(1);
    text = shown(parts[0]);
  }
  return rest.length > 0 ? [text, ...rest.map(shown)].join(" ") : text;
}

function shown(value) {
  return typeof value === "string" ? value : inspect(value);
}

function expand(pattern, rest) {
  return pattern.replace(/%([sdifjoOc%])/g, (whole, kind) => {
    if (kind === "%") return "%";
    if (rest.length === 0) return whole;
    const value = rest.shift();
    if (kind === "c") return "";
    if (kind === "s") return typeof value === "object" ? inspect(value) : String(value);
    if (kind === "j") return JSON.stringify(value);
    if (kind === "o" || kind === "O") return inspect(value);
    const number = typeof value === "symbol" ? NaN : Number(value);
    return String(kind === "f" ? number : kind === "i" ? Math.trunc(number) : number);
  });
}

const LEVELS = { log: "info", info: "info", debug: "debug", warn: "warn", error: "error" };

/** Make the console's levels the log's. */
export function takeConsole() {
  for (const [name, level] of Object.entries(LEVELS)) {
    console[name] = (...parts) => write(level, format(parts));
  }
}

/** What tasks see as `log`. */
export const log = Object.freeze({
  debug: (...parts) => write("debug", format(parts)),
  info: (...parts) => write("info", format(parts)),
  warn: (...parts) => write("warn", format(parts)),
  error: (...parts) => write("error", format(parts)),
});
