-- :name stands_in
-- What the giver has lent to the taker at this instant; of several, what ends last.
-- locks: none
select delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at, reason, revoked_by, revoked_at
from control.delegation
where tenant = %(tenant)s and taker = %(taker)s and giver = %(giver)s and revoked_at is null
  and starts_at <= %(at)s and ends_at > %(at)s
order by ends_at desc, delegation_id limit 1;

-- :name lent
-- As `stands_in`, of every giver.
-- locks: none
select distinct on (giver) delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at, reason, revoked_by,
       revoked_at
from control.delegation
where tenant = %(tenant)s and taker = %(taker)s and revoked_at is null and starts_at <= %(at)s and ends_at > %(at)s
order by giver, ends_at desc, delegation_id;

-- :name add
-- One person may vote in another's place from one instant to another.
-- locks: delegation
insert into control.delegation (tenant, delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at,
    reason)
values (%(tenant)s, %(delegation_id)s, %(giver)s, %(taker)s, %(roles)s, %(starts_at)s, %(ends_at)s, %(by)s, %(at)s,
        %(reason)s);

-- :name revoke
-- A delegation that ends before its time. No row where there is none, or it is over.
-- locks: delegation
update control.delegation set revoked_at = %(at)s, revoked_by = %(by)s
where tenant = %(tenant)s and delegation_id = %(delegation_id)s and revoked_at is null and ends_at > %(at)s
returning delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at, reason, revoked_by, revoked_at;

-- :name read
-- One delegation, whatever became of it.
-- locks: none
select delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at, reason, revoked_by, revoked_at
from control.delegation where tenant = %(tenant)s and delegation_id = %(delegation_id)s;

-- :name holding
-- The delegations that hold now or will, those that end first before the others.
-- locks: none
select delegation_id, giver, taker, roles, starts_at, ends_at, made_by, made_at, reason, revoked_by, revoked_at
from control.delegation where tenant = %(tenant)s and revoked_at is null and ends_at > %(at)s
order by ends_at, delegation_id;
