"""A task that tries everything and gives back what it was answered, by way."""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.getcwd())
import attempt  # pyright: ignore[reportMissingImports]


def main(params):
    folder = tempfile.mkdtemp()
    answers = {}
    for target in params.get("targets").split():
        kind = target.partition(":")[0]
        forms = ["plain", "fled", "threaded", "undumpable", "veiled"]
        if kind == "http":
            forms.append("inherited")
        for form in forms:
            for cleaned in (False, True):
                way = f"{target} {form}{' cleaned' if cleaned else ''}"
                out = os.path.join(folder, str(len(answers)))
                answers[way] = run(form, out, target, cleaned)
                print(way, answers[way][:40], flush=True)
        # And from the task's own process, after nothing at all.
        answers[f"{target} itself"] = attempt.talk(target)
    return answers


def run(form, out, target, cleaned):
    env = {} if cleaned else dict(os.environ)
    command = [sys.executable, "-I", "-S", "attempt.py", form, out, target]
    subprocess.run(command, env=env, check=True)
    return attempt.read_when_there(out)
