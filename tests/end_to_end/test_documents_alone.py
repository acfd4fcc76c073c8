"""One command from documents to a bot, killed while a teacher is asked about them."""

import json
import time
from pathlib import Path

from support.chat_server import ChatServer, chat_server
from support.jobs import only_run, run_command, start
from support.taught import QUESTIONS, teach, write_machines

from trainer.commands.prepare import OUTPUT, PAGE

MACHINES = 24
REQUESTS = 4 * MACHINES
EACH = sum(map(len, QUESTIONS.values()))


def taught_by(server: ChatServer) -> dict[str, str]:
    return {"TEACHER_URL": server.url, "TEACHER_MODEL": "big", "MAX_LOSS_RATIO": "2"}


def test_a_run_on_documents_that_is_killed_while_it_asks_goes_on_with_what_it_was_told(
    tmp_path: Path,
) -> None:
    write_machines(tmp_path / "data", MACHINES)
    with chat_server(write=lambda request: (time.sleep(0.02), teach(request))[1]) as server:
        process = start(tmp_path, **taught_by(server))
        while len(server.seen) < REQUESTS // 2 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        done = run_command(tmp_path, **taught_by(server))
        assert done.returncode == 0, done.stderr
        assert REQUESTS <= len(server.seen) < 1.5 * REQUESTS  # what was in flight is asked again
    run = only_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["conversation"] >= MACHINES * EACH
    assert record["evaluation"]["with_passages"]["questions"]
    assert {OUTPUT, PAGE} <= {path.name for path in (run / "prepared").iterdir()}
