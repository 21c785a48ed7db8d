"""What UpdateOTAJob does to a rollout of the simulated fleet. Pure, as `fleet`.

All that must be sent is checked, because a caller that means to slow a rollout down must resend every setting that it
read (https://help.aliyun.com/zh/iot/developer-reference/api-updateotajob).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bot.model import JobKind, JobState
from bot.sandbox.facts import Settings
from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import Omitted
from bot.sandbox.inventory import Call, Effect, FleetRefusal
from bot.sandbox.rollouts import Rollout

LEAST_RATE, MOST_RATE = 10, 10_000
_MOST_TAGS, _MOST_TAG_SIGNS, _LONGEST_KEY, _LONGEST_VALUE = 10, 4096, 30, 1024
_MOST_VERSIONS = 10
_SELECTIONS = ("ALL", "SPECIFIC", "GRAY", "GROUP")


@dataclass(frozen=True, slots=True)
class Update:
    """The parameters of one call. None: not sent. Tags that are not sent are cleared."""

    maximum_per_minute: int
    target_selection: str
    upgrade_type: str
    timeout_minutes: int | None = None
    src_versions: tuple[str, ...] | None = None
    tags: tuple[tuple[str, str], ...] = ()


def update_job(fleet: Fleet, job_id: str, update: Update, *, call: Call) -> Effect:
    """Carries an update out, or raises `FleetRefusal` and changes nothing."""
    rollout, now = fleet.job(job_id, instance_id=call.instance_id), fleet.now()
    state = rollout.state(now)
    if state is JobState.COMPLETED:
        raise FleetRefusal("iot.ota.JobHasFinished", "The job has finished.")
    if state is JobState.CANCELED:
        raise FleetRefusal("iot.ota.JobHasCanceled", "The job has been canceled.")
    is_dynamic = rollout.facts.kind is JobKind.DYNAMIC
    _check_kind(rollout, update, is_dynamic=is_dynamic)
    if not LEAST_RATE <= update.maximum_per_minute <= MOST_RATE:
        raise FleetRefusal("iot.ota.InvalidMaximumPerMinute", "MaximumPerMinute must be between 10 and 10000.")
    if update.timeout_minutes is not None and not 1 <= update.timeout_minutes <= 1440:
        raise FleetRefusal("iot.ota.InvalidTimeout", "TimeoutInMinutes must be between 1 and 1440.")
    _check_versions(update.src_versions)
    settings = replace(rollout.settings, per_minute=float(update.maximum_per_minute), tags=_checked_tags(update.tags))
    if is_dynamic:
        settings = _dynamic_settings(settings, update, fleet.habits.omitted_settings)
    rollout.change_settings(settings, now)
    return fleet.remember("UpdateOTAJob", job_id, call)


def _check_kind(rollout: Rollout, update: Update, *, is_dynamic: bool) -> None:
    if update.upgrade_type not in ("STATIC", "DYNAMIC"):
        raise FleetRefusal("iot.ota.InvalidUpgradeType", "UpgradeType must be STATIC or DYNAMIC.")
    if is_dynamic and update.upgrade_type == "STATIC":
        raise FleetRefusal("iot.ota.InvalidUpgradeType", "The job is a dynamic job.")
    has_dynamic_params = update.timeout_minutes is not None or update.src_versions is not None
    if not is_dynamic and (update.upgrade_type == "DYNAMIC" or has_dynamic_params):
        raise FleetRefusal("iot.ota.noDynamicJob", "The job is not a dynamic job.")
    if update.target_selection not in _SELECTIONS or update.target_selection != rollout.facts.target_selection:
        raise FleetRefusal("iot.ota.InvalidStrategyType", "TargetSelection does not fit the job.")


def _check_versions(versions: tuple[str, ...] | None) -> None:
    if versions is None:
        return
    if len(versions) > _MOST_VERSIONS or len(set(versions)) < len(versions) or not all(versions):
        raise FleetRefusal("iot.ota.InvalidSrcVersionList", "SrcVersionList must name at most 10 different versions.")


def _checked_tags(tags: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    sizes = [(len(key), len(value)) for key, value in tags]
    has_room = all(1 <= key <= _LONGEST_KEY and 1 <= value <= _LONGEST_VALUE for key, value in sizes)
    if len(tags) > _MOST_TAGS or not has_room or sum(map(sum, sizes)) > _MOST_TAG_SIGNS:
        raise FleetRefusal("iot.ota.JobTagIsTooLong", "A job has at most 10 tags of 30 and 1024 characters.")
    return dict(tags)


def _dynamic_settings(settings: Settings, update: Update, omitted: Omitted) -> Settings:
    """The settings that only a dynamic rollout has; what happens to one that was left out is a habit."""
    if update.src_versions is None and omitted is Omitted.REFUSED:
        raise FleetRefusal("iot.ota.EmptySrcVersionList", "SrcVersionList is empty.")
    timeout, versions = update.timeout_minutes, update.src_versions
    if omitted is not Omitted.CLEARED:
        timeout = settings.timeout_minutes if timeout is None else timeout
        versions = settings.src_versions if versions is None else versions
    return replace(settings, timeout_minutes=timeout, src_versions=versions or ())
