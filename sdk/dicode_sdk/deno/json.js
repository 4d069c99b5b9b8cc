// What may be sent as JSON, told strictly: nothing is turned into text or left out silently,
// except what JSON itself knows (`toJSON`) and properties that are undefined.

export const MAX_RETURN = 1024 * 1024;
export const MAX_FRAME = 2 * 1024 * 1024 + 64 * 1024;
const DEPTH = 200;

const HINTS = {
  bigint: "Number(value) or value.toString()",
  function: "the value that it gives",
  symbol: "String(value)",
  Map: "Object.fromEntries(value)",
  Set: "[...value]",
  Promise: "the awaited value (add await)",
  Response: "await response.json() or .text()",
  ArrayBuffer: "new Uint8Array(value).toBase64()",
  Error: "String(value)",
};

/** A value has no JSON form; `path` says where in it, like `$.items[3].when`. */
export class NotJson extends Error {
  constructor(path, message, hint) {
    super(`${path}: ${message}`);
    this.name = "NotJson";
    this.hint = hint;
  }
}

/** Give `value` as plain objects, arrays and scalars. Throws `NotJson`. */
export function plain(value, path = "$", depth = 0) {
  switch (typeof value) {
    case "string":
      if (value.isWellFormed()) return value;
      throw new NotJson(
        path,
        "text with half a surrogate pair is not Unicode",
        "value.toWellFormed()",
      );
    case "boolean":
      return value;
    case "number":
      if (Number.isFinite(value)) return value;
      throw new NotJson(path, `${value} has no JSON form`, "null, or a number");
    case "undefined":
      return null;
    case "object":
      return value === null ? null : structure(value, path, depth);
    default:
      throw new NotJson(path, `a ${typeof value} has no JSON form`, HINTS[typeof value]);
  }
}

function structure(value, path, depth) {
  if (depth >= DEPTH) {
    throw new NotJson(path, `nested deeper than ${DEPTH} levels, or contains itself`);
  }
  if (typeof value.toJSON === "function") return plain(value.toJSON(), path, depth + 1);
  if (Array.isArray(value)) {
    return Array.from(value, (item, index) => plain(item, `${path}[${index}]`, depth + 1));
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) throw foreign(value, path);
  const copy = {};
  for (const [key, item] of Object.entries(value)) {
    if (item === undefined) continue;
    plain(key, path);
    // Not `copy[key] =`: a key may be called __proto__.
    Object.defineProperty(copy, key, {
      value: plain(item, `${path}.${key}`, depth + 1),
      enumerable: true,
    });
  }
  return copy;
}

function foreign(value, path) {
  const name = value.constructor?.name || "an object of a class";
  let hint = HINTS[name];
  if (hint === undefined && value instanceof Error) hint = HINTS.Error;
  if (hint === undefined && ArrayBuffer.isView(value)) hint = "[...value], or value.toBase64()";
  return new NotJson(path, `${name} has no JSON form`, hint ?? "{ ...value }");
}
