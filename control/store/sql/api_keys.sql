-- :name beside_others
-- Let keys be made at once, and none while keys are revoked, until the transaction ends.
-- locks: none
select pg_advisory_xact_lock_shared(hashtextextended('control.keys ' || %(tenant)s, 0));

-- :name serialise
-- Let nobody make or revoke keys of the tenant, until the transaction ends.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.keys ' || %(tenant)s, 0));

-- :name add
-- A key just made, valid for a span from now on. Its text is not among what is stored. No row: the key with which it is
-- made was revoked. The caller holds the lock of `beside_others`.
-- locks: api_key
insert into control.api_key (tenant, key_id, digest, name, kind, roles, scopes, created_by, via, made_with, created_at,
                             expires_at)
select %(tenant)s::text, %(key_id)s, %(digest)s, %(name)s, %(kind)s, %(roles)s, %(scopes)s, %(by)s, %(via)s,
       %(made_with)s::text, now, now + %(lifetime)s
from control.clock() now
where %(made_with)s::text is null or exists (
    select from control.api_key
    where tenant = %(tenant)s::text and key_id = %(made_with)s::text and revoked_at is null
)
returning *;

-- :name present
-- From here to the end of the transaction the row of the key with this digest may be read, whichever tenant's it is.
-- locks: none
select set_config('control.presented', encode(%(digest)s, 'hex'), true);

-- :name presented
-- The key with this id and the time, if the key that was presented is the one.
-- locks: none
select key.*, control.clock() as now from control.api_key key where key_id = %(key_id)s;

-- :name touch
-- Notes the day of the key's last use; a row only on the first use of a day.
-- locks: api_key
update control.api_key set used_on = %(day)s
where tenant = %(tenant)s and key_id = %(key_id)s and used_on is distinct from %(day)s;

-- :name list
-- A tenant's keys, the newest first, and the time; the valid ones alone, or all of them.
-- locks: none
select key.*, now from control.api_key key, control.clock() now
where tenant = %(tenant)s and (%(all)s or (revoked_at is null and expires_at > now))
order by created_at desc, key_id limit %(limit)s;

-- :name get
-- One key of a tenant.
-- locks: none
select * from control.api_key where tenant = %(tenant)s and key_id = %(key_id)s;

-- :name made_with
-- The valid keys that were made with this one, or with one that was, however far down, the oldest first.
-- locks: none
with recursive made as (
    select key_id from control.api_key where tenant = %(tenant)s and made_with = %(key_id)s
    union
    select key.key_id from control.api_key key join made on key.made_with = made.key_id where key.tenant = %(tenant)s
)
select key.* from control.api_key key join made using (key_id)
where key.tenant = %(tenant)s and key.revoked_at is null and key.expires_at > control.clock()
order by key.created_at, key.key_id;

-- :name revoke
-- Ends a key. No row: there is none, or it was revoked before.
-- locks: api_key
update control.api_key set revoked_by = %(by)s, revoked_at = control.clock()
where tenant = %(tenant)s and key_id = %(key_id)s and revoked_at is null
returning *;
