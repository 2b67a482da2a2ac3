"""The command line: `python -m concordat_verify receipt FILE --trust trust.json`. Exit 0 valid, 4 invalid, 2 no such file."""

import argparse
import json
import sys

from .access import verify_list
from .errors import Invalid
from .receipt import verify_receipt
from .trust import Trust

VALID, USAGE, INVALID = 0, 2, 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="concordat_verify", description="Check evidence offline.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("receipt", "a receipt"), ("list", "a list of who looked"), ("trust", "trust.json alone")):
        command = commands.add_parser(name, help=f"check {what}")
        if name != "trust":
            command.add_argument("file", help=what)
        command.add_argument("--trust", required=True, help="trust.json")
        command.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _judge(args) -> dict:
    with open(args.trust, encoding="utf-8", newline="") as f:
        trust_text = f.read()
    if args.command == "trust":
        trust = Trust(trust_text)
        return {"valid": True, "chain": trust.chain, "epochs": len(trust.epochs), "fingerprint": trust.fingerprint}
    with open(args.file, "rb") as f:
        raw = f.read()
    verify = verify_receipt if args.command == "receipt" else verify_list
    return verify(raw, Trust(trust_text))


def _print_text(command: str, result: dict):
    if not result["valid"]:
        print(f"INVALID at {result['check']}: {result['detail']}")
        return
    if command == "trust":
        print(f"VALID: chain {result['chain']}, {result['epochs']} epochs, fingerprint {result['fingerprint']}")
        return
    status = result["status"] + (", CONTESTED: the key counts as compromised" if result.get("contested") else "")
    if command == "receipt":
        print(f"VALID ({status}): {result['operation']} at height {result['height']}, {result['verdict']} by the ledger")
        clause = f", clause {result['clause']}" if result["clause"] else ""
        print(f"{result['kind']} of {result['provider']} to {result['consumer'] or '(not opened)'}{clause}")
        for name, value in result["opened"].items():
            if value:
                print(f"  {name:<14} {value}")
    else:
        print(f"VALID ({status}): complete from op:{result['from_index']} to op:{result['complete_to'] - 1}")
        print(f"{len(result['accesses'])} operations on subject {result['subject']} of {result['dataset']}")
        for entry in result["accesses"]:
            line = f"{entry['operation']:<10} {entry['state']:<12} {entry['kind']} {entry['verdict']}"
            print(f"  {line} {entry['consumer'] or ''} {entry['clause'] or ''} {entry['sentence']}".rstrip())
    print("checks")
    for made in result["checks"]:
        print(f"  {made['name']:<18} {made['sentence']}")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        result = _judge(args)
    except Invalid as e:
        result = {"valid": False, "check": e.check, "detail": e.detail}
    except (OSError, UnicodeDecodeError) as e:
        print(f"concordat_verify: {e}", file=sys.stderr)
        return USAGE
    if args.output == "json":
        print(json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        _print_text(args.command, result)
    return VALID if result["valid"] else INVALID
