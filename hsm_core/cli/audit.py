"""`hsm audit`: hold the journal of a sweep against what is on the disk and what still runs."""

from __future__ import annotations

from dataclasses import asdict

import rich_click as click

from hsm_core.cli.output import Column, Output, Table, output_options


@click.command()
@click.argument("sweep")
@output_options
@click.pass_context
def audit(ctx: click.Context, output: Output, sweep: str) -> None:
    """Check that the journal of SWEEP tells what is there. Exit code 1 when something is not as it must be.

    For a sweep on which no launcher works. Nothing is changed.
    """
    from hsm_core.audit import gather, judge, read_account
    from hsm_core.registry import find
    from hsm_core.task import TaskState
    from hsm_core.text import plural

    entry = find(sweep)
    account = read_account(entry.directory / ".hsm" / "journal.jsonl")
    evidence = gather(entry.directory, account.state)
    findings = [asdict(finding) for finding in judge(account, evidence, entry.directory)]
    counts, records = account.state.counts, len(evidence.records)
    completed, failed = counts[TaskState.COMPLETED], counts[TaskState.FAILED]
    left = account.state.total - completed - failed
    told = f"{plural(account.state.total, 'task')}: {completed} completed, {failed} failed, {left} left to run"
    verdict = plural(len(findings), "finding") if findings else "the journal tells what is there"
    data = {
        "id": entry.id,
        "clean": not findings,
        "completed": completed,
        "failed": failed,
        "left": left,
        "records": records,
        "findings": findings,
    }
    words = f"{entry.id}, {told}; {plural(records, 'result record')}; {verdict}."
    output.show(data, *([Table(_COLUMNS, findings)] if findings else []), words)
    ctx.exit(1 if findings else 0)


_COLUMNS = (Column("where", "Where"), Column("problem", "What is wrong"), Column("advice", "What to do"))
