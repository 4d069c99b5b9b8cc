// What a Deno task is given: as the argument of `main`, and as names of a plain script.

/** One HTTP request that started the run. */
interface DicodeRequest {
  method: string;
  path: string;
  query: Record<string, string>;
  /** Names in lower case. */
  headers: Record<string, string>;
  delivery_id?: string;
}

/** How a run that was waited for ended. */
interface DicodeRunResult {
  runID: string;
  status: string;
  // deno-lint-ignore no-explicit-any
  returnValue: any;
}

interface DicodeParams {
  /** Give a parameter, or `otherwise` (null) when it has no value. */
  // deno-lint-ignore no-explicit-any
  get<T = any>(name: string, otherwise?: T): Promise<T>;
  /** Give all parameters. */
  // deno-lint-ignore no-explicit-any
  all(): Promise<Record<string, any>>;
}

interface DicodeEnv {
  /** Give a variable that `permissions.env` grants, or `otherwise`. */
  get(name: string): string | undefined;
  get(name: string, otherwise: string): string;
}

/** Values that stay from run to run, for this task alone: anything that JSON can hold. */
interface DicodeKv {
  // deno-lint-ignore no-explicit-any
  get<T = any>(key: string, otherwise?: T): Promise<T>;
  /** Write a value; it is durable when the promise resolves. */
  set(key: string, value: unknown): Promise<void>;
  /** Remove a value; tells whether there was one. */
  delete(key: string): Promise<boolean>;
  /** List the keys that start with `prefix`, sorted. */
  list(prefix?: string): Promise<string[]>;
}

/** What the run shows beside its return value; the last call counts. */
interface DicodeOutput {
  /** Show a value; `secret` is for provider tasks, which answer with secrets. */
  (values: unknown, options?: { secret?: boolean }): Promise<void>;
  html(content: string, options?: { data?: unknown }): Promise<void>;
  text(content: string): Promise<void>;
  image(mime: string, base64: string): Promise<void>;
  file(name: string, content: string | Uint8Array | ArrayBuffer, mime?: string): Promise<void>;
}

/** Log lines with a level; `console` writes to the same log. */
interface DicodeLog {
  debug(...parts: unknown[]): void;
  info(...parts: unknown[]): void;
  warn(...parts: unknown[]): void;
  error(...parts: unknown[]): void;
}

/** The server, as far as `permissions.dicode` lets this task. A refusal names the line to add. */
interface DicodeServer {
  /** Run another task and wait for its end, whatever the status. */
  run_task(id: string, params?: Record<string, unknown>): Promise<DicodeRunResult>;
  /** Start another task and do not wait. */
  trigger(id: string, input?: unknown): Promise<{ runID: string }>;
  // deno-lint-ignore no-explicit-any
  list_tasks(): Promise<Record<string, any>[]>;
  // deno-lint-ignore no-explicit-any
  get_runs(id: string, limit?: number): Promise<Record<string, any>[]>;
  secrets_set(name: string, value: string): Promise<void>;
  secrets_delete(name: string): Promise<void>;
  /** Report model tokens used since the last report; gives the run's sum and what is left today. */
  usage(report: { tokens: number }): Promise<{ tokens: number; left: number | null }>;
  /** Tell how far the run is. */
  progress(done: number, total?: number | null, message?: string): Promise<void>;
  /**
   * Ask a person. The script ends here and starts again from its top with the answer: side effects
   * belong after it, or into `once`. `schema` is a flat JSON Schema object, or for one value its
   * type or a list of choices. Throws a DicodeError with the code `declined` when the person would
   * not answer.
   */
  // deno-lint-ignore no-explicit-any
  ask<T = any>(
    schema: Record<string, unknown> | "boolean" | "string" | "integer" | "number" | string[],
    message: string,
    /** `key` names the question where their order may change; `timeout` is in seconds or "36h". */
    options?: { key?: string; timeout?: number | string },
  ): Promise<T>;
  /** Give what `make()` gave the first time in this run; kept as JSON when the promise resolves. */
  // deno-lint-ignore no-explicit-any
  once<T = any>(key: string, make: () => T | Promise<T>): Promise<T>;
  /**
   * Start the program `agents/NAME` of this task and wait; gives the JSON that it prints.
   * `timeout` (10 min) is in seconds or as "15m".
   */
  // deno-lint-ignore no-explicit-any
  agent(name: string, payload?: unknown, options?: { timeout?: number | string }): Promise<any>;
  // deno-lint-ignore no-explicit-any
  runs: {
    /**
     * Start a run again with what it was started with. `params` go over the run's own, `input`
     * takes the place of its input; editing either needs the task in `permissions.dicode.tasks`
     * too. Does not wait.
     */
    replay(
      run_id: string,
      edited?: { params?: Record<string, unknown>; input?: unknown },
    ): Promise<{ runID: string; task: string; taskChanged: boolean }>;
  };
  // deno-lint-ignore no-explicit-any
  tasks: { test(id: string): Promise<Record<string, any>> };
  sources: {
    set_dev_mode(
      name: string,
      enabled?: boolean,
      options?: Record<string, unknown>,
      // deno-lint-ignore no-explicit-any
    ): Promise<Record<string, any>>;
  };
  // deno-lint-ignore no-explicit-any
  git: { commit_push(message: string, options?: Record<string, unknown>): Promise<Record<string, any>> };
}

/** The tools of tasks that serve MCP (`permissions.dicode.mcp`). */
interface DicodeMcp {
  // deno-lint-ignore no-explicit-any
  list_tools(task: string): Promise<Record<string, any>[]>;
  // deno-lint-ignore no-explicit-any
  call(task: string, tool: string, args?: Record<string, unknown>): Promise<any>;
}

/** Throw it when trying again is of no use: the run fails, and `retry` is not applied. */
declare class NoRetryError extends Error {}

/** What `main` is given. */
interface DicodeSdk {
  NoRetryError: typeof NoRetryError;
  params: DicodeParams;
  env: DicodeEnv;
  kv: DicodeKv;
  /** What the run was started with: a webhook's body, a chain's value, a caller's input. */
  // deno-lint-ignore no-explicit-any
  input: any;
  request: DicodeRequest | null;
  output: DicodeOutput;
  log: DicodeLog;
  dicode: DicodeServer;
  mcp: DicodeMcp;
}

/** What a call to the server throws. */
interface DicodeError extends Error {
  code: string;
  hint?: string;
}

declare const params: DicodeSdk["params"];
declare const env: DicodeSdk["env"];
declare const kv: DicodeSdk["kv"];
declare const input: DicodeSdk["input"];
declare const request: DicodeSdk["request"];
declare const output: DicodeSdk["output"];
declare const log: DicodeSdk["log"];
declare const dicode: DicodeSdk["dicode"];
declare const mcp: DicodeSdk["mcp"];
/** What a plain script gives: `result = …`. */
// deno-lint-ignore no-explicit-any no-var
declare var result: any;
