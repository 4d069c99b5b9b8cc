"""Called with ``--payload FILE``; prints its result as JSON, and all else on stderr."""

import argparse
import json
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--payload", required=True)
    with open(parser.parse_args().payload, encoding="utf-8") as file:
        payload = json.load(file)
    print(f"looking at {len(payload['items'])} items", file=sys.stderr)
    print(json.dumps({"longest": max(payload["items"], key=len)}))


main()
