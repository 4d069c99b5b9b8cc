from dicode_sdk import dicode, input, log, params


def main():
    if not isinstance(input, dict) or "taskID" not in input:
        raise ValueError("this task is a failure chain: name it in on_failure_chain of another")
    error = input.get("error") or {"message": input.get("status", "it failed")}
    text = f"{input['taskID']} failed: {error['message']} (run {input['runID']})"
    log.error(text)
    if not params.get("channels"):
        return {"told": False, "text": text}
    given = {"channels": params.get("channels"), "text": text, "event": "first_failure"}
    run = dicode.run_task("notify", given)
    if run["status"] != "success":
        why = (run.get("error") or {}).get("message") or run["status"]
        raise RuntimeError(f"notify did not get it through (run {run['runID']}): {why}")
    return {"told": True, "text": text}
