"""What a report shows of an attack on a run's updates (`evaluation.leakage`)."""

from fedray.report.recorded import Recorded

SEEN = {
    "neighbour": "the next device of the relay, which sees the model that one client has trained",
    "server": "the server, which sees one update as it arrives",
    "sum": "the server, which sees only the sum of a round's updates",
}
PICTURES = (
    "Above, pictures that stand-in clients trained on, and nobody else; below, what an attacker makes of them"
    " out of the update, who knows the model, how clients train, the labels and the order of batches."
)
MEMBERS = (
    "The pictures with the lowest losses, which an attacker takes for trained on: above, samples that were;"
    " below, held-out ones, so that it is mistaken. Where both rows are alike, losses tell little."
)


def observed(run: Recorded) -> tuple[str, str, bytes | None] | None:
    """Of a run whose updates were looked at: who looked, what its sheet shows, and the last sheet. None of
    others."""
    section = run.scenario["evaluation"].get("leakage") or {}
    view = section.get("view")
    if view not in SEEN:
        return None
    by_loss = any("eval_membership_auc" in row for row in (run.baseline, *run.rows))
    return f"The attacker is {SEEN[view]}.", MEMBERS if by_loss else PICTURES, run.samples.attack
