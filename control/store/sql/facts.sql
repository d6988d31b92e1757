-- :name put
-- A fact becomes what it now is. The caller holds the lock of `change`.
-- locks: fact
insert into control.fact (tenant, name, value, set_at, set_by)
values (%(tenant)s, %(name)s, %(value)s, control.clock(), %(by)s)
on conflict (tenant, name) do update set value = excluded.value, set_at = excluded.set_at, set_by = excluded.set_by
returning name, value, set_at, set_by;

-- :name of_tenant
-- What is known, by name; with `names`, of these alone.
-- locks: none
select name, value, set_at, set_by from control.fact
where tenant = %(tenant)s and (%(names)s::text[] is null or name = any (%(names)s)) order by name;

-- :name change
-- Wait until nobody who rests on the tenant's facts is about to act; nobody will until the transaction ends.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.fact ' || %(tenant)s, 0));

-- :name rest
-- Let the tenant's facts and policy be as they are until the transaction ends. Others may rest on them too.
-- locks: none
select pg_advisory_xact_lock_shared(hashtextextended('control.fact ' || %(tenant)s, 0)),
       pg_advisory_xact_lock_shared(hashtextextended('control.policy ' || %(tenant)s, 0));
