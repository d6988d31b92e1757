-- :name held
-- The open questions of a run, or one of them, each with its gate and its votes in order.
-- locks: none
select a.interrupt_id, a.kind, a.title, a.packet, a.schema, a.opened_at, a.expires_at, a.gate, a.rung, a.reviews,
       a.overdue,
       a.assignee,
       (select jsonb_agg(jsonb_build_array(v.voter, v.seat, v.roles, v.via, v.vote = 'yes', v.at, v.digest)
                         order by v.at, v.voter)
        from control.vote v
        where v.tenant = a.tenant and v.run_id = a.run_id and v.interrupt_id = a.interrupt_id) as votes
from control.approval a
where a.tenant = %(tenant)s and a.run_id = %(run_id)s and a.decision is null
  and (%(interrupt_id)s::text is null or a.interrupt_id = %(interrupt_id)s)
order by a.opened_at, a.interrupt_id;

-- :name cast
-- One vote. A second yes of one person, or in one person's place, is a unique violation.
-- locks: vote
insert into control.vote (tenant, run_id, interrupt_id, voter, vote, seat, roles, via, answer, digest, note, at)
values (%(tenant)s, %(run_id)s, %(interrupt_id)s, %(voter)s, %(vote)s, %(seat)s, %(roles)s, %(via)s, %(answer)s,
        %(digest)s, %(note)s, %(at)s);

-- :name advance
-- What time or an assignment has made of an open question.
-- locks: approval
update control.approval
set rung = %(rung)s, reviews = %(reviews)s, overdue = %(overdue)s, due_at = %(due_at)s, assignee = %(assignee)s,
    assigned_why = coalesce(%(assigned_why)s, assigned_why)
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s and decision is null
returning interrupt_id;
