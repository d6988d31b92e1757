-- :name try_out
-- A notice that tells of no entry. No row: there is no such sink.
-- locks: sink, notice, procrastinate_jobs
insert into control.notice (tenant, sink_id, event, made_at)
select tenant, sink_id, 'test', control.clock() from control.sink
where tenant = %(tenant)s and sink_id = %(sink_id)s and removed_at is null
returning notice_id;

-- :name addressed_to
-- Which sink a notice is for. No row: there is no such notice.
-- locks: none
select sink_id from control.notice where tenant = %(tenant)s and notice_id = %(notice_id)s;

-- :name begin
-- Counts one more try of a notice that is not settled, and gives everything it tells, and to whom. No row: nothing is
-- left to do. The ledger's entry and the question may have been erased since.
-- locks: notice
update control.notice n set tries = n.tries + 1, tried_at = control.clock()
from control.sink s
left join control.sink_secret c on c.tenant = s.tenant and c.sink_id = s.sink_id,
lateral (
    select control.clock() as now
) clock
where n.tenant = %(tenant)s and n.notice_id = %(notice_id)s and n.delivered_at is null and n.failed_at is null
  and s.tenant = n.tenant and s.sink_id = n.sink_id
returning n.notice_id, n.tenant, n.event, n.run_id, n.seq, n.made_at, n.tries, s.kind, s.target,
          s.removed_at is not null as removed, clock.now, c.secret,
          case when c.before_until > clock.now then c.before end as before;

-- :name about
-- The run, entry and question that a notice tells of.
-- locks: none
select r.thread_id, r.workflow, r.status, l.actor, l.body, a.interrupt_id, a.kind, a.title, a.node,
       encode(a.packet_digest, 'hex') as packet_digest, a.expires_at, a.decision is null as open
from control.run r
join control.ledger l on l.tenant = r.tenant and l.run_id = r.run_id and l.seq = %(seq)s
left join control.approval a
    on a.tenant = r.tenant and a.run_id = r.run_id and a.interrupt_id = l.body::jsonb ->> 'interrupt_id'
where r.tenant = %(tenant)s and r.run_id = %(run_id)s;

-- :name settle
-- What came of a try: delivered, failed for good, or neither, and then it is tried again.
-- locks: notice
update control.notice
set delivered_at = case when %(delivered)s then control.clock() end,
    failed_at = case when %(failed)s then control.clock() end, error = %(error)s
where tenant = %(tenant)s and notice_id = %(notice_id)s and delivered_at is null and failed_at is null;

-- :name prune
-- Deletes the oldest of a tenant's notices that were made before then and are settled, so many at most. Those that
-- another prunes at the same moment are left to it.
-- locks: notice
delete from control.notice
where tenant = %(tenant)s and notice_id in (
    select notice_id from control.notice
    where tenant = %(tenant)s and made_at < control.clock() - %(kept)s::interval
      and (delivered_at is not null or failed_at is not null)
    order by made_at, notice_id desc limit %(limit)s for update skip locked
);

-- :name list
-- A tenant's newest notices, those that failed alone where asked for.
-- locks: none
select n.notice_id, n.sink_id, s.kind, s.target, n.event, n.run_id, n.seq, n.made_at, n.tries, n.tried_at,
       n.delivered_at, n.failed_at, n.error
from control.notice n join control.sink s on s.tenant = n.tenant and s.sink_id = n.sink_id
where n.tenant = %(tenant)s and (not %(failed)s or n.failed_at is not null)
order by n.made_at desc, n.notice_id limit %(limit)s;

-- :name read
-- One notice as it stands.
-- locks: none
select n.notice_id, n.sink_id, s.kind, s.target, n.event, n.run_id, n.seq, n.made_at, n.tries, n.tried_at,
       n.delivered_at, n.failed_at, n.error
from control.notice n join control.sink s on s.tenant = n.tenant and s.sink_id = n.sink_id
where n.tenant = %(tenant)s and n.notice_id = %(notice_id)s;
