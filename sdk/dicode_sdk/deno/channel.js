// The one connection of a task to its server: numbered requests and their answers, line by line.

import { MAX_FRAME, NotJson, plain } from "./json.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const CHUNK = 64 * 1024;
const NEWLINE = 10;
const GONE = { code: "unreachable", message: "the server has closed the connection" };

/** The server refused or failed a call. `hint` says what to do, e.g. the line to add. */
export class DicodeError extends Error {
  constructor(code, message, hint) {
    super(hint ? `${message} (${hint})` : message);
    this.name = "DicodeError";
    this.code = code;
    this.hint = hint;
  }
}

/** The connection. It keeps the process alive only while a call waits for its answer. */
export class Channel {
  #connection;
  #pending = new Map();
  #parts = [];
  #number = 0;
  #writing = Promise.resolve();
  #gone = false;
  #onIdle = [];
  #suspended = false;

  /** Called once when the script has asked and is to end. */
  onSuspended = () => {};

  static async open(path) {
    const channel = new Channel();
    channel.#connection = await Deno.connect({ transport: "unix", path });
    return channel;
  }

  /** Read the first frame, then answers for ever. */
  async start() {
    const first = await this.#receive();
    if (first === null) throw gone();
    this.#connection.unref();
    this.#readOn();
    return first.start;
  }

  /** Ask the server. Throws `DicodeError`. */
  async call(method, args) {
    if (this.#suspended) return never();
    const id = ++this.#number;
    const data = encoded({ id, method, args: checked(method, args) });
    if (this.#gone) throw gone();
    const answer = await new Promise((resolve) => {
      if (this.#pending.size === 0) this.#connection.ref();
      this.#pending.set(id, resolve);
      this.#write(data);
    });
    // No error to catch: the script gets no further than here, and the process ends.
    if (this.#suspended) return never();
    if (answer.error) {
      throw new DicodeError(answer.error.code, answer.error.message, answer.error.hint);
    }
    return answer.result ?? null;
  }

  /** Wait until no call is without its answer. */
  idle() {
    if (this.#pending.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  /** Write the last frame; resolves when the system has it. */
  finish(frame) {
    this.#connection.ref();
    return this.#write(encoder.encode(JSON.stringify({ finish: frame }) + "\n"));
  }

  #write(data) {
    this.#writing = this.#writing.then(async () => {
      try {
        for (let sent = 0; sent < data.length;) {
          sent += await this.#connection.write(data.subarray(sent));
        }
      } catch {
        this.#break();
      }
    });
    return this.#writing;
  }

  async #readOn() {
    for (let frame; (frame = await this.#receive()) !== null;) {
      if (frame.suspended && !this.#suspended) {
        this.#suspended = true;
        this.onSuspended();
      }
      const resolve = this.#pending.get(frame.id);
      this.#pending.delete(frame.id);
      this.#rest();
      resolve?.(frame);
    }
    this.#break();
  }

  #rest() {
    if (this.#pending.size > 0) return;
    this.#connection.unref();
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** The server is gone: answer everyone who waits, and whoever calls later. */
  #break() {
    this.#gone = true;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    this.#rest();
    for (const resolve of waiting) resolve({ error: GONE });
  }

  async #receive() {
    while (true) {
      const line = this.#takeLine();
      if (line !== null) return JSON.parse(line);
      const chunk = new Uint8Array(CHUNK);
      let count = null;
      try {
        count = await this.#connection.read(chunk);
      } catch {
        // Told as an end: either way nothing more will come.
      }
      if (count === null) return null;
      this.#parts.push(chunk.subarray(0, count));
    }
  }

  #takeLine() {
    // Only the newest part can hold a line end that was not looked for yet.
    const last = this.#parts.at(-1);
    const end = last === undefined ? -1 : last.indexOf(NEWLINE);
    if (end < 0) return null;
    const head = [...this.#parts.slice(0, -1), last.subarray(0, end)];
    const rest = last.subarray(end + 1);
    this.#parts = rest.length > 0 ? [rest] : [];
    return decoder.decode(joined(head));
  }
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function checked(method, args) {
  try {
    return plain(args);
  } catch (error) {
    if (!(error instanceof NotJson)) throw error;
    throw new DicodeError("invalid_argument", `${method}: ${error.message}`, error.hint);
  }
}

function encoded(frame) {
  const data = encoder.encode(JSON.stringify(frame) + "\n");
  if (data.length <= MAX_FRAME) return data;
  const isOutput = frame.method === "output";
  throw new DicodeError(
    isOutput ? "output_too_large" : "too_large",
    `the ${isOutput ? "output" : "value"} is ${grouped(data.length)} bytes as JSON, ` +
      `more than the ${grouped(MAX_FRAME)} allowed`,
    "write it to a file or split it",
  );
}

function never() {
  return new Promise(() => {});
}

function gone() {
  return new DicodeError(GONE.code, GONE.message);
}

/** Write a whole number with commas, as the Python SDK does. */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ",");
}
