"""The acts: begin, kill, take over, ask, answer, count. Exits with 1 where a check fails, 130 on Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from uuid import UUID

from rich.text import Text

from control import app
from control.cli import output
from control.cli.portrait import asking
from control.cli.standing import Standing
from control.core.problem import Refusal
from control.core.run_status import TERMINAL, Status
from control.core.story import tell
from control.runtime.commands import Control
from control.runtime.commands.cancel import cancel
from control.store import listing
from graphs.loan_demo.answer import Answer, given
from graphs.loan_demo.counts import Check, Counts, Killed, Outside, checks, opening
from graphs.loan_demo.crew import ROOT, Crew, Fault, crew
from graphs.loan_demo.screen import Screen
from graphs.loan_demo.watch import Watch, wait_for_workers
from nodes.chat_model import SCRIPTED

FILES: Final = ROOT / "graphs" / "data" / "loan" / "lindqvist"
_LEFT: Final = 200


class Demo:
    """One showing. The event loop runs only while something is awaited, so that a prompt can be left with Ctrl-C."""

    def __init__(self, screen: Screen, crew: Crew, stack: ExitStack) -> None:
        self.screen, self.crew = screen, crew
        self._loop = stack.enter_context(asyncio.Runner())
        opened = app.commanding(crew.settings)
        self.control: Control = self._loop.run(opened.__aenter__())
        stack.callback(lambda: self._loop.run(opened.__aexit__(None, None, None)))

    def play(self, *, answer: Answer | None, why: str, began: float) -> list[Check]:
        self._set_up(began)
        watch = Watch(self.control, self._start(), self.crew, self.screen)
        killed = self._kill(watch)
        asked = self._take_over(watch, killed)
        self._ask(asked, answer=answer, why=why)
        now = self._loop.run(watch.until(lambda now: now.status.word in TERMINAL))
        found, counts = Outside.of(self.crew), Counts.of(watch.entries, killed)
        self._letter_and_bill(found, counts)
        self._story(watch)
        held = [*checks(now, found, counts, killed=killed, run_id=watch.run_id), self._sound()]
        self._verdict(held, now)
        return held

    def _set_up(self, began: float) -> None:
        self.screen.act("A database, a bank's other side, and two workers")
        left = self._loop.run(_leftovers(self.control))
        settings = self.crew.settings
        self.screen.say(f"PostgreSQL of its own in {os.path.relpath(settings.data_dir)}")
        if left:
            self.screen.say(f"open runs of showings that were broken off, now cancelled: {left}")
        where = self.crew.environment
        self.screen.say(f"credit bureau {where['LOAN_BUREAU_URL']}, risk service {where['LOAN_RISK_URL']}")
        self.screen.say(f"mail server {where['LOAN_SMTP_HOST']}:{where['LOAN_SMTP_PORT']}")
        at = settings.openai_base_url or "OpenAI"
        self.screen.say(f"chat model: {SCRIPTED if self.crew.scripted else f'{settings.openai_model} at {at}'}")
        pids = [self.crew.hire(), self.crew.hire()]
        self._loop.run(wait_for_workers(self.control, self.crew))
        took_s = time.monotonic() - began
        self.screen.say(f"$ control worker   twice: processes {pids[0]} and {pids[1]}, at work after {took_s:.1f} s")

    def _start(self) -> UUID:
        statements = sorted(str(path.relative_to(ROOT)) for path in FILES.glob("*.csv"))
        document = str((FILES / "application.pdf").relative_to(ROOT))
        self.screen.act("An application comes in, and the risk service is not up to it yet")
        self.screen.say(f"$ control start loan_approval --input …   {document}, {len(statements)} statements")
        given = json.dumps({"application_pdf": document, "statements": statements})
        return UUID(json.loads(self._done("start", "loan_approval", "--input", given, "--json"))["run_id"])

    def _kill(self, watch: Watch) -> Killed:
        """Let it go on until a model has been asked and has not answered; then kill whoever asked."""
        held = self._loop.run(watch.until(self._asks_a_model))
        holder = str(held.run.worker_id)
        pid = watch.pids.get(holder)
        if pid not in self.crew.working:
            raise Fault(f"Somebody else's worker has the run: process {pid} is none of {self.crew.working}.")
        self.screen.act("The worker is killed while the model thinks")
        at, code = datetime.now(UTC), self.crew.kill(pid)
        after = self._loop.run(watch.look())
        killed = Killed(holder, pid, code, at, held.run.epoch, held.nodes, after.effects)
        waits = " and ".join(f"the {row['name']}" for row in after.effects if row["state"] == "began")
        said = f"$ kill -9 {pid}   the worker in node {', '.join(held.nodes)}, waiting for {waits or 'nothing more'}"
        self.screen.event(watch.clock(at), said, style="bold red")
        return killed

    def _asks_a_model(self, now: Standing) -> bool:
        """Whether a call is noted as begun; the scripted model must have heard it, too."""
        begun = any(row["kind"] == "model" and row["state"] == "began" for row in now.effects)
        heard = not self.crew.scripted or self.crew.model_log.exists()
        return begun and heard and now.run.worker_id is not None

    def _take_over(self, watch: Watch, killed: Killed) -> Standing:
        asked = self._loop.run(watch.until(lambda now: now.status.word is Status.AWAITING_APPROVAL))
        counts = Counts.of(watch.entries, killed)
        by = watch.pids.get(str(counts.taken_over_by))
        self.screen.say(f"Worker {by} had it {counts.taken_over_s:.2f} s after the kill, and went on where it stood.")
        return asked

    def _ask(self, asked: Standing, *, answer: Answer | None, why: str) -> None:
        """Show the question as `control show` does, and give the answer, until one is taken."""
        self.screen.act("A person is asked")
        (question,) = asked.questions
        self.screen.draw(asking(question, asked))
        if why:
            self.screen.say(why, "bold")
        most = float(json.loads(question.packet)["action"]["amount_eur"])
        while True:
            said = answer or given(most)
            command = said.command(str(asked.run.run_id)[:8], most)
            self.screen.say(f"$ control {shlex.join(command)}")
            done = self.crew.control(*command, by=said.by)
            if done.returncode == 0:
                return
            if answer:
                raise Fault(done.stderr)
            self.screen.say(done.stderr.rstrip(), "red")

    def _letter_and_bill(self, found: Outside, counts: Counts) -> None:
        self.screen.act("The letter, the bill and the model's calls")
        for mail in found.mail:
            self.screen.say(f"To {', '.join(mail['recipients'])}: {mail['subject']}", "bold")
            for line in opening(mail["text"], lines=4):
                self.screen.say(f"  {line}")
        charges = f"{len(found.charges)} charge{'' if len(found.charges) == 1 else 's'}"
        self.screen.say(f"credit bureau: {charges}, EUR {found.fee_eur:.2f}; requests repeated: {found.repeats}")
        self.screen.say(
            f"chat model: {counts.model_calls} calls begun, {counts.in_flight} of them in flight at the kill; "
            f"recorded answers asked again: {counts.asked_again}"
        )

    def _story(self, watch: Watch) -> None:
        self.screen.act("The story, made from the ledger")
        for sentence in tell(watch.entries):
            self.screen.tell(watch.clock(sentence.at), sentence.text)

    def _sound(self) -> Check:
        """The doctor's word on every ledger, status and index in the database."""
        done = self.crew.control("doctor", "--json")
        told: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"runs": 0, "found": done.stderr}
        found = f"runs: {told['runs']}, ledger entries: {told.get('entries')}, findings: {told['found']}"
        return Check("Ledger and status, recomputed by the doctor", done.returncode == 0, found)

    def _verdict(self, held: list[Check], now: Standing) -> None:
        self.screen.act("Checked in this run")
        for check in held:
            line = Text("  ✓ " if check.holds else "  ✗ ", "green" if check.holds else "bold red")
            self.screen.draw(line.append(f"{check.name:<46}", "default").append(check.found, "dim"))
        folder = os.path.relpath(self.crew.settings.data_dir)
        look = f"CONTROL_TENANT=demo CONTROL_DATA_DIR={folder} .venv/bin/control show {str(now.run.run_id)[:8]}"
        self.screen.say(f"Look around: {look}")

    def _done(self, *command: str) -> str:
        """What a command printed. Raises `Fault` with its words where it was refused."""
        done = self.crew.control(*command)
        if done.returncode:
            raise Fault(done.stderr)
        return done.stdout


async def _leftovers(control: Control) -> int:
    """Cancel what showings that were broken off have left, lest the workers turn to it."""
    async with control.transaction() as conn:
        found = await listing.page(conn, control.tenant, limit=_LEFT, stall_after=control.stall_after)
    open_ids = [run.run_id for run in found if run.status not in TERMINAL]
    for run_id in open_ids:
        await cancel(control, run_id, reason="the showing was broken off")
    return len(open_ids)


def _stopped(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def show(*, yes: bool) -> int:
    """Play it, and clean up whatever happens. Returns the exit code."""
    began, screen = time.monotonic(), Screen()
    by_itself = yes or not sys.stdin.isatty()
    why = "" if yes or not by_itself else "Nobody is at a terminal here, so the answer is given as with --yes."
    with ExitStack() as stack:
        try:
            demo = Demo(screen, stack.enter_context(crew()), stack)
            held = demo.play(answer=Answer(by="the demonstration") if by_itself else None, why=why, began=began)
        except Refusal as refusal:
            output.problem(refusal, as_json=False)
            return 1
        except Fault as fault:
            screen.say(f"The demonstration stopped. {fault}", "bold red")
            return 1
    failed = [check.name for check in held if not check.holds]
    took_s = time.monotonic() - began
    if failed:
        screen.say(f"Does not hold: {'; '.join(failed)}.", "bold red")
        return 1
    screen.say(f"All {len(held)} checks hold. It took {took_s:.1f} s, everything is stopped again.", "bold green")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--yes", action="store_true", help="approve what is asked, without a person")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stopped)
    try:
        code = show(yes=options.yes)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is left running.", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
