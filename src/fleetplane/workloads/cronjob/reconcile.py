"""Makes it so: deletes, creates, writes status, looks again at the next scheduled time."""

from __future__ import annotations

from fleetplane.client.informer import Informer
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.model.builtin.types import CRON_JOBS, JOBS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, name, namespace, uid
from fleetplane.workloads.cronjob.plan import Plan, plan, with_created
from fleetplane.workloads.cronjob.schedule import BadSchedule, parse
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending
from fleetplane.workloads.shared.indexes import add_ownership, owned_by


class CronJobs:
    def __init__(self, actor: Actor, crons: Informer, jobs: Informer) -> None:
        self._actor = actor
        self._crons = crons
        self._jobs = jobs
        add_ownership(jobs)

    def controller(self) -> Controller:
        return Controller("cronjob", CRON_JOBS, self.reconcile, owns=[JOBS], max_concurrent=4, resync=None)

    async def reconcile(self, request: Request) -> Result | None:
        cron = self._crons.get_key(request)
        if cron is None:
            return None
        try:
            schedule = parse(str(cron["spec"].get("schedule") or ""), str(cron["spec"].get("timeZone") or ""))
        except BadSchedule as error:
            reason = "UnknownTimeZone" if "time zone" in str(error) else "UnparseableSchedule"
            text = f"unparseable schedule {cron['spec'].get('schedule')!r}: {error}"
            self._actor.tell(request.cluster, cron, "Warning", reason, text)
            return None
        made = plan(cron, owned_by(self._jobs, uid(cron)), schedule, self._actor.environment.now())
        await self._carry_out(request.cluster, cron, made)
        return None if made.recheck_after is None else Result(requeue_after=made.recheck_after)

    async def _carry_out(self, cluster: str, cron: Object, made: Plan) -> None:
        for job in made.delete:
            if await self._actor.delete(cluster, JOBS, namespace(job), name(job), uid(job)):
                self._actor.tell(cluster, cron, "Normal", "SuccessfulDelete", f"Deleted job {name(job)}")
        for kind, reason, message in made.events:
            self._actor.tell(cluster, cron, "Warning" if kind == "Warning" else "Normal", reason, message)
        if made.create is not None:
            created = await self._create(cluster, cron, made.create)
            if created is None:
                return
            made.status = with_created(made.status, created)
        await self._actor.write_status(cluster, CRON_JOBS, cron, made.status)

    async def _create(self, cluster: str, cron: Object, job: Object) -> Object | None:
        try:
            made = await self._actor.create_child(cluster, JOBS, job)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return await self._found(cluster, cron, job)
            if not is_namespace_ending(error):
                text = f"Error creating job: {error.message}"
                self._actor.tell(cluster, cron, "Warning", "FailedCreate", text)
            raise
        self._actor.tell(cluster, cron, "Normal", "SuccessfulCreate", f"Created job {name(made)}")
        return made

    async def _found(self, cluster: str, cron: Object, job: Object) -> Object | None:
        """The Job of this time was made already, by us or (under our name) by somebody else."""
        found = await self._actor.client(cluster).get(JOBS, name(job), namespace(job))
        owner = controller_of(found)
        return found if owner is not None and owner.uid == uid(cron) else None
