"""A controller finds the rows of its trials by their keys, however many the job has: what it costs
to write a result does not grow with the results before it."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from search_server.store import CandidateRecord, Store
from search_server.store.records import Due
from workers import TrialResult


class Selects:
    """The reads of the table `trials` on an engine."""

    def __init__(self, engine: Engine) -> None:
        self.found: list[tuple[str, Any]] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT") and "FROM trials" in statement:
            self.found.append((statement, parameters))


@pytest.mark.parametrize("count", [1, 3])
def test_trials_are_looked_up_in_an_index(count: int, tmp_path: Path) -> None:
    places = [(0, "proxy", seed) for seed in range(count)]
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job = store.create_job("a", {}, "model", ("x",))
        store.add_candidate(job, CandidateRecord(0, "baseline", (), {}, "key", stage="proxy"))
        selects = Selects(store.engine)
        dues = [Due(*place, spec_key="s", trained_key=f"{place[2]:064x}") for place in places]
        store.start_trials(job, dues)
        store.finish_trials(
            job,
            {place: TrialResult("done", "", 0.5, place[2], 5) for place in places},  # type: ignore[misc]
        )
        assert len(selects.found) >= 2
        with store.engine.connect() as connection:
            for statement, parameters in selects.found:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps = [str(row[-1]) for row in plan if "trials" in str(row[-1])]
                assert steps, statement
                for step in steps:
                    assert "candidate=?" in step or "trained_key=?" in step, (step, statement)
        assert {trial.state for trial in store.trials(job)} == {"done"}
