// What /dicode.js gives to the page of a webhook task, as `window.dicode`.

/** A JSON value. */
type DicodeJson = null | boolean | number | string | DicodeJson[] | { [name: string]: DicodeJson };

/** Where a run stands. It has ended unless it is `queued`, `running` or `waiting`. */
type DicodeStatus =
  | "queued"
  | "running"
  | "waiting"
  | "success"
  | "failure"
  | "timeout"
  | "cancelled"
  | "skipped"
  | "lost";

/** How a run ended. */
interface DicodeResult {
  runId: string;
  status: DicodeStatus;
  done: true;
  /** Of `body`; `application/json` when the task showed nothing and `body` is its return value. */
  contentType?: string;
  /** What the task showed with `output.*`, else its return value as JSON text. */
  body?: string;
  /** `body` is base64 of bytes. */
  base64?: true;
  returnValue?: DicodeJson;
  /** Why it did not end well. */
  error?: { code: string; message: string };
}

/** What a run tells while it is on. */
type DicodeEvent =
  | { type: "status"; runId: string; status: DicodeStatus }
  | { type: "progress"; done: number; total?: number; message: string }
  /** A line that the task printed or logged as `info`; `ts` is ms since 1970, `seq` rises. */
  | { type: "log"; seq: number; ts: number; level: "info"; message: string };

interface DicodeOptions {
  onEvent?: (event: DicodeEvent) => void;
  /** Called when the run ended with `success`. */
  onFinish?: (result: DicodeResult) => void;
  /** Called when the run ended otherwise (`error.result` is there) or could not be followed. */
  onError?: (error: DicodeError) => void;
  /** Stops waiting. The run goes on. */
  signal?: AbortSignal;
}

/** What went wrong: `code` is stable, `hint` says what to do. */
interface DicodeError extends Error {
  code?: string;
  hint?: string;
  httpStatus?: number;
  result?: DicodeResult;
}

interface Dicode {
  readonly task: { readonly id: string; readonly hookPath: string };
  /**
   * Start the task with `params` as the JSON body, and follow the run.
   *
   * Resolves with the result however the run ended (look at `status`); rejects with a `DicodeError`
   * when it could not be started or followed.
   */
  execute(params?: DicodeJson, options?: DicodeOptions): Promise<DicodeResult>;
  /** Give how a run that this webhook started ended, after waiting for its end. */
  result(runId: string): Promise<DicodeResult>;
  /**
   * Show a result in an element: text as text, a picture as such, other bytes as a link that saves
   * them, HTML in a frame in which no script runs. Sets `data-status` on the element.
   */
  show(element: Element, result: Partial<DicodeResult>): void;
  /** Give HTML for text with a terminal's colours; all else in it is escaped. */
  ansiToHtml(text: string): string;
  /** `fetch` for addresses below the page's own webhook; plain `fetch` is refused there. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  DicodeError: { new (message: string, more?: object): DicodeError };
}

declare const dicode: Dicode;

interface Window {
  readonly dicode: Dicode;
}
