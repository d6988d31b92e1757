-- :name assigning
-- One assignment at a time in a tenant, until the transaction ends, so that no capacity is given away twice.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.assign ' || %(tenant)s, 0));

-- :name candidates
-- Everybody whom questions are given to, with how many lie with each, and how many of those are due before an instant.
-- locks: none
select s.name, s.roles, s.skills, s.capacity, s.away_until, count(a.assignee) as open,
       count(a.assignee) filter (where a.expires_at < %(before)s) as due_sooner
from control.assignee s
left join control.approval a on a.tenant = s.tenant and a.assignee = s.name and a.decision is null
where s.tenant = %(tenant)s
group by s.tenant, s.name order by s.name;

-- :name set
-- Somebody whom questions are given to from now on, or on other terms.
-- locks: assignee
insert into control.assignee (tenant, name, roles, skills, capacity, away_until, set_by, set_at)
values (%(tenant)s, %(name)s, %(roles)s, %(skills)s, %(capacity)s, %(away_until)s, %(by)s, %(at)s)
on conflict (tenant, name) do update
set roles = excluded.roles, skills = excluded.skills, capacity = excluded.capacity, away_until = excluded.away_until,
    set_by = excluded.set_by, set_at = excluded.set_at;

-- :name remove
-- Somebody to whom no more questions are given; what lies with them stays there.
-- locks: assignee
delete from control.assignee where tenant = %(tenant)s and name = %(name)s returning name;
