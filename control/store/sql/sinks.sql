-- :name add
-- A sink that was checked and permitted.
-- locks: sink
insert into control.sink (tenant, sink_id, kind, target, events, audience, made_by, made_at)
values (%(tenant)s, %(sink_id)s, %(kind)s, %(target)s, %(events)s, %(audience)s, %(by)s, control.clock())
returning *;

-- :name add_secret
-- What signs the messages of a new webhook.
-- locks: sink_secret
insert into control.sink_secret (tenant, sink_id, secret) values (%(tenant)s, %(sink_id)s, %(secret)s);

-- :name list
-- A tenant's sinks in the order they were made; those that were removed too where they are asked for.
-- locks: none
select * from control.sink where tenant = %(tenant)s and (%(all)s or removed_at is null) order by made_at, sink_id;

-- :name remove
-- Ends a sink. No row: there is none, or it was removed before.
-- locks: sink
update control.sink set removed_by = %(by)s, removed_at = control.clock()
where tenant = %(tenant)s and sink_id = %(sink_id)s and removed_at is null
returning *;

-- :name forget
-- The secret of a sink that was removed.
-- locks: sink_secret
delete from control.sink_secret where tenant = %(tenant)s and sink_id = %(sink_id)s;

-- :name rotate
-- A new secret; the one before stays valid beside it for a span. No row where the sink has none.
-- locks: sink_secret
update control.sink_secret c
set secret = %(secret)s, before = c.secret, before_until = control.clock() + %(overlap)s
from control.sink s
where c.tenant = %(tenant)s and c.sink_id = %(sink_id)s and s.tenant = c.tenant and s.sink_id = c.sink_id
  and s.removed_at is null
returning c.before_until;
