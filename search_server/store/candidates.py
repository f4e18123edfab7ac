"""Candidates: added with the draws that led to them, updated, listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import select

from search_server.fingerprints import SCALES_AGREE, Fingerprint
from search_server.store import convert, lookup, models, totals
from search_server.store.losses import loss_id
from search_server.store.moves import CANDIDATE_MOVES, STAGE_MOVES, check_move
from search_server.store.records import CandidateRecord, CandidateState, DrawRecord, Stage
from search_server.store.sessions import Sessions, now, outlasting


class Candidates(Sessions):
    """The store's methods about candidates and draws."""

    @outlasting
    def add_candidate(
        self,
        job_id: str,
        candidate: CandidateRecord,
        counts: Mapping[tuple[str, str], int] | None = None,
        traced: Sequence[tuple[str, str, str]] = (),
        fingerprint: Fingerprint | None = None,
        scales: float = SCALES_AGREE,
    ) -> CandidateRecord:
        """Add the next candidate with the draws that led to it, in one transaction.

        Args:
            counts: (origin, outcome) -> draws, added to the job's counts; the outcome of a draw is
                `accepted` or the reason of its rejection.
            traced: (origin, text, outcome) of draws to keep.
            fingerprint: of the loss; None leaves the candidate's `loss_id` as it is given.
            scales: largest relative difference of equal losses' scales.

        Returns:
            The record as it is in the store now, with its `loss_id`.

        Raises:
            StoreError: the index is not the next one, or the job has a candidate of this key.
        """
        with self.changing(job_id) as session:
            job = lookup.job(session, job_id, lock=True)
            lookup.check_next(session, job_id, candidate)
            if fingerprint is not None:
                found = loss_id(session, fingerprint, scales)
                candidate = replace(candidate, loss_id=found)
            row = convert.candidate_row(job_id, candidate)
            made = models.Candidate(**row, board=job.board, serial=job.serial, created_at=now())
            session.add(made)
            totals.add_candidate(session, made)
            for (origin, outcome), count in (counts or {}).items():
                key = (job_id, origin, convert.plain(outcome))
                known = session.get(models.FunnelCount, key)
                if known is None:
                    session.add(
                        models.FunnelCount(
                            job_id=job_id, origin=origin, outcome=key[2], count=count
                        )
                    )
                else:
                    known.count += count
            for position, (origin, text, outcome) in enumerate(traced):
                session.add(
                    models.Draw(
                        job_id=job_id,
                        candidate=candidate.index,
                        position=position,
                        origin=origin,
                        text=convert.plain(text),
                        outcome=convert.plain(outcome),
                    )
                )
        return candidate

    @outlasting
    def identify(
        self, job_id: str, index: int, fingerprint: Fingerprint, scales: float = SCALES_AGREE
    ) -> int:
        """Find out which loss of the store a candidate of an earlier version is; its `loss_id`.

        Raises:
            JobError: no such candidate.
        """
        with self.changing(job_id) as session:
            row = lookup.candidate(session, job_id, index, lock=True)
            row.loss_id = loss_id(session, fingerprint, scales)
            return row.loss_id

    @outlasting
    def update_candidate(
        self,
        job_id: str,
        index: int,
        *,
        stage: Stage | None = None,
        state: CandidateState | None = None,
        simulate_score: float | None = None,
        fitness: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Change what is given, leave the rest.

        Raises:
            IllegalMove: the state, or the stage, cannot follow the present one.
            JobError: no such candidate.
        """
        what = f"candidate {job_id}:{index}"
        with self.changing(job_id) as session:
            row = lookup.candidate(session, job_id, index, lock=True)
            before = totals.Fitness.of(row)
            if stage is not None:
                check_move(STAGE_MOVES, f"the stage of {what}", row.stage, stage)
                row.stage = stage
            if state is not None:
                check_move(CANDIDATE_MOVES, what, row.state, state)
                row.state = state
            if simulate_score is not None:
                row.simulate_score = convert.finite(simulate_score)
            if fitness is not None:
                row.fitness = convert.finite(fitness)
            if reason is not None:
                row.reason = convert.plain(reason)
            totals.change_candidate(session, row, before)

    @outlasting
    def candidate(self, job_id: str, index: int) -> CandidateRecord:
        """One candidate.

        Raises:
            JobError: no such job, or it has no such candidate.
        """
        with self.reading() as session:
            return convert.candidate_record(lookup.candidate(session, job_id, index))

    @outlasting
    def candidates(self, job_id: str) -> list[CandidateRecord]:
        """A job's candidates by index."""
        with self.reading() as session:
            lookup.job(session, job_id)
            rows = select(models.Candidate).where(models.Candidate.job_id == job_id)
            found = session.scalars(rows.order_by(models.Candidate.index))
            return [convert.candidate_record(row) for row in found]

    @outlasting
    def counts(self, job_id: str) -> dict[tuple[str, str], int]:
        """(origin, outcome) -> draws."""
        row = models.FunnelCount
        query = select(row.origin, row.outcome, row.count).where(row.job_id == job_id)
        with self.reading() as session:
            lookup.job(session, job_id)
            found = session.execute(query.order_by(row.origin, row.outcome))
            return {(origin, outcome): count for origin, outcome, count in found}

    @outlasting
    def draws(self, job_id: str) -> list[DrawRecord]:
        """The draws that were kept, in the order in which they were drawn."""
        row = models.Draw
        with self.reading() as session:
            lookup.job(session, job_id)
            query = select(row).where(row.job_id == job_id).order_by(row.candidate, row.position)
            return [convert.draw_record(draw) for draw in session.scalars(query)]
