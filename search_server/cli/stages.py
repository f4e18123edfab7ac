"""`lossforge stages`: how well the stages of a job rank."""

from __future__ import annotations

from search_server.cli.options import JobArgument, JsonOption, StoreOption, job_id, open_store


def stages(job: JobArgument = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show how well each stage of a job ranks: its rank correlation with the confirmed AP.

    Spearman's correlation with a 95% bootstrap interval, over the candidates that have both: the
    confirmed few (and the baseline), and all that were trained to the end of the proxy task.

    Example: lossforge stages digits-atss-1
    """
    from search_server.cli.output import console, print_json, stdout_kept, table

    with open_store(store) as opened:
        of = job_id(opened, job)
        with stdout_kept():
            from search_server.stage_correlation import described, stage_ranks

            ranks = stage_ranks(opened, of)
    if as_json:
        print_json({"job": of, "stages": ranks})
        return
    out = console()
    if not ranks:
        out.print("No candidate has been measured by two stages yet.")
        return
    made = table("stage", "against", "candidates", "rank correlation", right=("candidates",))
    for rank in ranks:
        made.add_row(rank.stage, rank.against, str(rank.count), described(rank))
    out.print(made)
    out.print(
        "Spearman, 95% bootstrap interval. Against confirm: only what the proxy task found best "
        "was confirmed, and over such a choice ranks agree less than over all losses.",
        style="dim",
    )
