-- :name in_force
-- Which text is in force for the tenant: its digest alone, so that looking costs next to nothing.
-- locks: none
select digest from control.policy where tenant = %(tenant)s order by version desc limit 1;

-- :name text_at
-- Which text was in force for the tenant at an instant.
-- locks: none
select text from control.policy where tenant = %(tenant)s and applied_at <= %(at)s order by version desc limit 1;

-- :name history
-- Every version that the tenant has had, newest first.
-- locks: none
select version, digest, text, note, applied_at, applied_by
from control.policy where tenant = %(tenant)s order by version desc limit %(limit)s;

-- :name serialise
-- Let one policy be applied at a time for a tenant, until the transaction ends.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.policy ' || %(tenant)s, 0));

-- :name add
-- A text becomes the version in force. The caller holds the lock of `serialise`.
-- locks: policy
insert into control.policy (tenant, version, digest, text, note, applied_at, applied_by)
select %(tenant)s::text, coalesce(max(version), 0) + 1, %(digest)s, %(text)s, %(note)s, control.clock(), %(by)s
from control.policy where tenant = %(tenant)s
returning version, digest, text, note, applied_at, applied_by;

-- :name decisions
-- What was decided of requests lately, oldest first: entries whose body still holds the request. Reads the tenant's
-- whole ledger of that time, since it has no index by time; for a question that is asked now and then.
-- locks: none
select l.run_id, l.seq, l.at, l.actor, l.kind, l.body
from control.ledger l join control.run r using (tenant, run_id)
where l.tenant = %(tenant)s and l.at >= control.clock() - %(span)s and l.body like '%%"request":{%%'
  and (/* visible */ true)
order by l.at, l.run_id, l.seq;
