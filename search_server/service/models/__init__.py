"""What the API answers with: pydantic models, apart from the records that they are made from."""

from search_server.service.models.base import AP, Answer, Gain, Health
from search_server.service.models.jobs import (
    JobDetail,
    JobItem,
    JobList,
    Progress,
    RunningTrial,
    job_detail,
    job_item,
    progress_of,
)

__all__ = [
    "AP",
    "Answer",
    "Gain",
    "Health",
    "JobDetail",
    "JobItem",
    "JobList",
    "Progress",
    "RunningTrial",
    "job_detail",
    "job_item",
    "progress_of",
]
