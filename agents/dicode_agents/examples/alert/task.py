def main(params, input, log):
    if not input:
        return {"told": False}
    error = input["error"] or {"message": input["status"]}
    text = f"{input['taskID']} failed: {error['message']} (run {input['runID']})"
    log.error(f"to {params.get('channel')}: {text}")
    return {"told": True, "text": text}
