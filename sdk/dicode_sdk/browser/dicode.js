// For a task's page; see dicode.d.ts.
(() => {
	"use strict";
	const meta = (name) => document.querySelector(`meta[name="dicode-${name}"]`)?.content ?? "";
	const task = Object.freeze({ id: meta("task"), hookPath: meta("hook") });

	class DicodeError extends Error {
		constructor(message, more) {
			super(message);
			Object.assign(this, { name: "DicodeError" }, more);
		}
	}

	// The key tells the server whose page calls.
	function call(path, init = {}) {
		const headers = new Headers(init.headers);
		headers.set("X-Dicode-Page", meta("page"));
		const url = new URL(path || task.hookPath, document.baseURI);
		return fetch(url, { ...init, headers, credentials: "omit" });
	}

	async function checked(path, init) {
		const answer = await call(path, init).catch((cause) => {
			if (cause.name === "AbortError") throw cause;
			throw new DicodeError("the server cannot be reached", { code: "unreachable", cause });
		});
		if (answer.ok) return answer;
		const said = await answer.json().catch(() => ({}));
		const { code, hint, detail, message } = { ...said, ...said.error };
		const text = message ?? detail ?? `the server answered ${answer.status}`;
		throw new DicodeError(text, { code, hint, httpStatus: answer.status });
	}

	async function patiently(step) {
		for (let tries = 0; ; tries++) {
			try {
				const found = await step();
				if (found) return found;
				tries = 0;
			} catch (error) {
				const passes = error.code === "unreachable" || [429, 502, 503].includes(error.httpStatus);
				if (tries > 7 || !passes) throw error;
			}
			await new Promise((done) => setTimeout(done, Math.min(5e3, 250 * 2 ** tries)));
		}
	}

	// An EventSource could not send the key. A stream that breaks just ends.
	async function* events(answer) {
		const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
		try {
			for (let text = ""; ; ) {
				const { value, done } = await reader.read().catch(() => ({ done: true }));
				if (done) return;
				const parts = (text + value).split("\n\n");
				text = parts.pop();
				for (const part of parts) {
					const told = {};
					for (const line of part.split("\n")) {
						const at = line.indexOf(": ");
						if (at > 0) told[line.slice(0, at)] = line.slice(at + 2);
					}
					if (told.event) yield { ...told, data: JSON.parse(told.data) };
				}
			}
		} finally {
			reader.cancel().catch(() => {});
		}
	}

	const place = (runId) => `${task.hookPath}/.dicode/runs/${encodeURIComponent(runId)}`;

	async function run(params, { onEvent, signal }) {
		const started = await checked(`${task.hookPath}?wait=false`, {
			method: "POST",
			headers: { "Content-Type": "application/json" },
			body: JSON.stringify(params),
			signal,
		});
		const { runId } = await started.json();
		let after = 0;
		return patiently(async () => {
			const stream = await checked(`${place(runId)}/events?after=${after}`, { signal });
			for await (const { event, data, id } of events(stream)) {
				if (event === "finish") return data;
				after = id ?? after;
				onEvent?.({ type: event, ...data });
			}
			signal?.throwIfAborted();
		});
	}

	function execute(params = {}, options = {}) {
		const { onFinish, onError } = options;
		const ended = run(params, options).then(
			(result) => {
				const { status, error } = result;
				if (status === "success") onFinish?.(result);
				else onError?.(new DicodeError(error?.message ?? status, { ...error, result }));
				return result;
			},
			(error) => {
				onError?.(error);
				throw error;
			},
		);
		if (onError) ended.catch(() => {});
		return ended;
	}

	const result = (runId) =>
		patiently(async () => {
			const found = await (await checked(`${place(runId)}?wait=25`)).json();
			return found.done && found;
		});

	async function fields(form, submitter) {
		const found = new Map();
		for (let [name, value] of new FormData(form, submitter)) {
			if (value instanceof File) {
				if (!value.name) continue;
				const reader = new FileReader();
				const loaded = new Promise((done) => (reader.onloadend = done));
				reader.readAsDataURL(value);
				await loaded;
				const base64 = reader.result.split(",")[1] ?? "";
				value = { filename: value.name, content_type: value.type, base64 };
			}
			found.set(name, found.has(name) ? [found.get(name), value].flat() : value);
		}
		return Object.fromEntries(found);
	}

	const COLOURS = "#555 #c33 #283 #960 #36c #939 #088 #888".split(" ");
	const STYLES = { 1: "font-weight:bold", 3: "font-style:italic", 4: "text-decoration:underline" };

	function ansiToHtml(text) {
		const style = new Map();
		let html = "";
		String(text)
			.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
			.replace(/\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b\[[\d;?]*[A-Za-ln-z]/g, "")
			.split(/\x1b\[([\d;]*)m/)
			.forEach((part, index) => {
				if (index % 2 === 0) {
					const css = [...style.values()].join(";");
					html += css && part ? `<span style="${css}">${part}</span>` : part;
					return;
				}
				const codes = part.split(";").map(Number);
				for (let code; (code = codes.shift()) !== undefined; ) {
					const shade = code >= 90 ? code - 60 : code;
					const ground = shade < 40 ? "color" : "background-color";
					if (code === 0) style.clear();
					else if (STYLES[code]) style.set(code, STYLES[code]);
					else if (code < 30) style.delete(code === 22 ? 1 : code - 20);
					else if (shade % 10 === 8) codes.splice(0, codes[0] === 2 ? 4 : 2);
					else if (shade % 10 === 9) style.delete(ground);
					else if (shade < 48) style.set(ground, `${ground}:${COLOURS[shade % 10]}`);
				}
			});
		return html;
	}

	// No script of the HTML runs.
	function show(element, { status, contentType = "", body = "", base64, returnValue, error }) {
		const data = `data:${contentType};base64,${body}`;
		const make = (name, values) => Object.assign(document.createElement(name), values);
		let child = body;
		if (status !== "success") child = error?.message ?? status;
		else if (base64 && contentType.startsWith("image/")) child = make("img", { src: data, alt: "" });
		else if (base64) child = make("a", { href: data, download: "", textContent: "Save the result" });
		else if (contentType.startsWith("text/html")) {
			child = make("iframe", { srcdoc: body, title: "Result" });
			child.setAttribute("sandbox", "");
			child.style.cssText = "width:100%;height:24em;border:0";
		} else if (contentType === "application/json" && returnValue !== undefined)
			child = typeof returnValue === "string" ? returnValue : JSON.stringify(returnValue, null, 2);
		element.dataset.status = status ?? "error";
		element.replaceChildren(child);
	}

	async function submit(form, submitter) {
		const find = (selector) => (selector ? document.querySelector(selector) : null);
		const [output, log] = [find(form.dataset.output), find(form.dataset.log)];
		const tell = (name, detail) =>
			form.dispatchEvent(new CustomEvent(`dicode:${name}`, { detail, bubbles: true }));
		const buttons = [...form.elements].filter((one) => one.type === "submit" && !one.disabled);
		const busy = (on) => {
			form.ariaBusy = on;
			for (const button of buttons) button.disabled = on;
		};
		log?.replaceChildren();
		try {
			const read = fields(form, submitter);
			busy(true);
			const onEvent = (event) => {
				const line = event.type === "log" && `${ansiToHtml(event.message)}\n`;
				if (line) log?.insertAdjacentHTML("beforeend", line);
				tell("event", event);
			};
			const end = await execute(await read, { onEvent });
			if (output) show(output, end);
			tell("finish", end);
		} catch (error) {
			if (output) show(output, { error });
			tell("error", error);
		} finally {
			busy(false);
		}
	}

	document.addEventListener("submit", (event) => {
		if (event.defaultPrevented || !event.target.matches("form[data-dicode]")) return;
		event.preventDefault();
		submit(event.target, event.submitter);
	});

	const api = { task, execute, result, show, ansiToHtml, fetch: call, DicodeError };
	window.dicode = Object.freeze(api);
})();
