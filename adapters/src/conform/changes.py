#!/usr/bin/env python3
"""Changes of a source for `concordat adapter conform -f FILE --changes changes.py`: a folder `in` into which files are dropped.

Called in the base folder with the name of one change. It prints what must come of it, as the key's fields of each event and as a
number of dead letters; exit code 3 says that this source cannot be changed so. See adapters/README.md."""
import json
import os
import pathlib
import shutil
import sys

FOLDER, AWAY, STATE = pathlib.Path("in"), pathlib.Path("in-away"), pathlib.Path("changes.state")


def rows(count):
    """So many new rows, as text and as their keys."""
    first = int(STATE.read_text()) if STATE.exists() else 0
    STATE.write_text(str(first + count))
    numbers = range(first, first + count)
    return [f"{n},1.5\n" for n in numbers], [{"id": n} for n in numbers]


def drop(lines, header="id,mw\n"):
    """Files are whole when they get their last name."""
    name = f"f{len(list(FOLDER.iterdir())):04}-{os.getpid()}.csv"
    write(name + ".part", lines, header)
    (FOLDER / (name + ".part")).rename(FOLDER / name)


def write(name, lines, header="id,mw\n"):
    (FOLDER / name).write_text(header + "".join(lines))


def told(expected=(), dead=0):
    return {"expected": list(expected), "dead": dead}


def fresh():
    """A new world for each check: the files, and what the adapter remembers of them."""
    for folder in (FOLDER, AWAY):
        shutil.rmtree(folder, ignore_errors=True)
    for file in pathlib.Path("adapters").glob("*.files.jsonl"):
        file.unlink()
    FOLDER.mkdir()
    return told(add(11) + add(1) + add(20))


def add(count):
    lines, keys = rows(count)
    drop(lines)
    return keys


def poison():
    lines, keys = rows(6)
    drop(lines[:3] + ["x,much\n"] + lines[3:])
    return told(keys, dead=1)


def half_written():
    lines, keys = rows(9)
    write("half.csv.part", lines[:4])
    pathlib.Path("half.keys").write_text(json.dumps([lines, keys]))
    return told()


def finished():
    lines, keys = json.loads(pathlib.Path("half.keys").read_text())
    write("half.csv.part", lines)
    (FOLDER / "half.csv.part").rename(FOLDER / "half.csv")
    return told(keys)


def resent():
    """It may have been moved already, to a folder below."""
    newest = max(FOLDER.rglob("*.csv"), key=lambda file: file.stat().st_mtime_ns)
    shutil.copy(newest, FOLDER / "again.csv.part")
    (FOLDER / "again.csv.part").rename(FOLDER / "again.csv")
    return told()


def changed_header():
    lines, keys = rows(4)
    drop([",".join(reversed(line.strip().split(","))) + "\n" for line in lines], header="mw,number\n")
    return told(keys)


def drift():
    lines, keys = rows(3)
    drop([line.strip() + ",more\n" for line in lines], header="id,mw,note\n")
    return told(keys)


def cut():
    FOLDER.rename(AWAY)
    return told()


def restored():
    AWAY.rename(FOLDER)
    return told()


CHANGES = {"fresh": fresh, "rows": lambda: told(add(9)), "poison": poison, "half-written": half_written, "finished": finished,
           "resent": resent, "changed-header": changed_header, "drift": drift, "cut": cut, "restored": restored}
change = CHANGES.get(sys.argv[1])
if change is None:
    sys.exit(3)  # files have no cursor: equal-cursor, late-row, skewed-clock
print(json.dumps(change()))
