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
  /** Tell how far the run is. */
  progress(done: number, total?: number | null, message?: string): Promise<void>;
  /** Wait for a person's answer that fits a JSON Schema. */
  // deno-lint-ignore no-explicit-any
  ask(schema: Record<string, unknown>, message: string): Promise<any>;
  /** Hand work to an agent. */
  // deno-lint-ignore no-explicit-any
  agent(name: string, payload?: unknown): Promise<any>;
  // deno-lint-ignore no-explicit-any
  runs: { replay(run_id: string): Promise<Record<string, any>> };
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

/** What `main` is given. */
interface DicodeSdk {
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
