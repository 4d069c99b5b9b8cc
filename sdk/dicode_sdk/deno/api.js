// What a task sees: `params env kv output dicode mcp`, over the connection to the server. What may
// be called is decided by the server, after `permissions.dicode` of the task's manifest.

import { log } from "./log.js";
import { plain } from "./json.js";

/** Throw it when trying again is of no use: the run fails, and `retry` is not applied. */
export class NoRetryError extends Error {
  name = "NoRetryError";
}

/** Make the names of one run, from the server's first frame. */
export function names(channel, start) {
  const call = (method, args) => channel.call(method, args);
  return {
    params: params(start.params ?? {}),
    env: { get: readEnv },
    kv: kv(call),
    input: start.input ?? null,
    request: start.request ?? null,
    output: output(call),
    log,
    NoRetryError,
    dicode: dicode(call),
    mcp: {
      list_tools: (task) => call("mcp.list_tools", { task }),
      call: (task, tool, args = {}) => call("mcp.call", { task, tool, args }),
    },
  };
}

function params(values) {
  return {
    get: (name, otherwise = null) => {
      const value = Object.hasOwn(values, name) ? values[name] : null;
      return Promise.resolve(value ?? otherwise);
    },
    all: () => Promise.resolve({ ...values }),
  };
}

function readEnv(name, otherwise) {
  try {
    return Deno.env.get(name) ?? otherwise;
  } catch (error) {
    // A variable that the manifest does not grant is not there.
    if (error instanceof Deno.errors.NotCapable) return otherwise;
    throw error;
  }
}

function kv(call) {
  return {
    get: async (key, otherwise = null) => (await call("kv.get", { key })) ?? otherwise,
    set: async (key, value) => void (await call("kv.set", { key, value })),
    delete: (key) => call("kv.delete", { key }),
    list: (prefix = "") => call("kv.list", { prefix }),
  };
}

function output(call) {
  const show = async (args) => void (await call("output", args));
  const value = (values, { secret = false } = {}) => {
    if (secret) return show({ kind: "secret", data: values });
    const data = plain(values);
    return show({ kind: "value", content_type: "application/json", body: JSON.stringify(data), data });
  };
  return Object.assign(value, {
    html: (content, { data = null } = {}) =>
      show({ kind: "html", content_type: "text/html; charset=utf-8", body: content, data }),
    text: (content) =>
      show({ kind: "text", content_type: "text/plain; charset=utf-8", body: content }),
    image: (mime, base64) =>
      show({ kind: "image", content_type: mime, body: base64, base64: true }),
    file: (name, content, mime = "application/octet-stream") => {
      const shown = { kind: "file", content_type: mime, name };
      if (typeof content === "string") return show({ ...shown, body: content });
      return show({ ...shown, body: new Uint8Array(content).toBase64(), base64: true });
    },
  });
}

function dicode(call) {
  const done = (method) => async (args) => void (await call(method, args));
  return {
    run_task: (id, params = {}) => call("run_task", { id, params }),
    trigger: (id, input = null) => call("trigger", { id, input }),
    list_tasks: () => call("list_tasks", {}),
    get_runs: (id, limit = 10) => call("get_runs", { id, limit }),
    secrets_set: (name, value) => done("secrets_set")({ name, value }),
    secrets_delete: (name) => done("secrets_delete")({ name }),
    usage: ({ tokens }) => call("usage", { tokens }),
    progress: (count, total = null, message = "") =>
      done("progress")({ done: count, total, message }),
    ask: (schema, message, { key = null, timeout = null } = {}) =>
      call("ask", { schema, message, key, timeout }),
    once: async (key, make) => {
      const kept = await call("once.get", { key });
      if (kept.found) return kept.value;
      return await call("once.put", { key, value: (await make()) ?? null });
    },
    agent: (name, payload = null, { timeout = null } = {}) =>
      call("agent", { name, payload, timeout }),
    runs: { replay: (run_id, edited = {}) => call("runs.replay", { ...edited, run_id }) },
    tasks: { test: (id) => call("tasks.test", { id }) },
    sources: {
      set_dev_mode: (name, enabled = true, options = {}) =>
        call("sources.set_dev_mode", { ...options, name, enabled }),
    },
    git: { commit_push: (message, options = {}) => call("git.commit_push", { ...options, message }) },
  };
}
