"""Long lists of jobs, two at a time, with progress; what is finished is kept, and a stopped list goes on from there."""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

ROOT = Path(__file__).parents[2]
ROOMS = ("reference", "gpu", "proofs", "tests")
WORKERS = 2


def tree_digest() -> str:
    """What the code and the tests were, so that results of another tree are not taken for this one's."""
    files = sorted(f for room in ROOMS for f in (ROOT / room).rglob("*") if f.suffix in (".py", ".json"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def results(work: Callable[[str], Any], jobs: Iterable[str], kept: Path, description: str) -> dict[str, Any]:
    """What `work`, which waits for processes, says of every job, as JSON; in `kept` while the tree stays the same."""
    record: dict[str, Any] = {"tree": tree_digest(), "results": {}}
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        record = before if before["tree"] == record["tree"] else record
    kept.parent.mkdir(exist_ok=True)
    jobs = list(jobs)
    left = [job for job in jobs if job not in record["results"]]
    with ThreadPoolExecutor(WORKERS) as pool, Progress(console=Console(stderr=True)) as progress:
        running = {pool.submit(work, job): job for job in left}
        try:
            for done in progress.track(as_completed(running), total=len(left), description=description):
                record["results"][running[done]] = done.result()
                part = kept.with_suffix(".part")
                part.write_text(json.dumps(record), encoding="utf-8")
                part.replace(kept)
        finally:
            pool.shutdown(cancel_futures=True)
    return {job: record["results"][job] for job in jobs}
