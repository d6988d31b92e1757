-- :name open
-- A run's open questions, oldest first.
-- locks: none
select interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest, schema, opened_at, expires_at, returned
from control.approval where tenant = %(tenant)s and run_id = %(run_id)s and decision is null
order by opened_at, interrupt_id;

-- :name read
-- One question, decided or not.
-- locks: none
select interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest, schema, opened_at, expires_at, decision,
       answer, note, decided_by, decided_at, delivered_at, returned
from control.approval where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s;

-- :name decide
-- One decision per question. No row where it was decided already.
-- locks: approval
update control.approval
set decision = %(decision)s, answer = %(answer)s, note = %(note)s, decided_by = %(by)s, decided_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s and decision is null
returning interrupt_id;

-- :name supersede
-- The open questions of a run no longer exist on its head; neither do answers that were not delivered.
-- locks: approval
update control.approval set decision = coalesce(decision, 'superseded'), decided_at = coalesce(decided_at, %(at)s),
       delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and delivered_at is null and interrupt_id <> all (%(keep)s)
returning interrupt_id;

-- :name answers
-- What has been answered and not delivered: the resume value of each interrupt.
-- locks: none
select interrupt_id, answer, packet, schema
from control.approval
where tenant = %(tenant)s and run_id = %(run_id)s and decision in ('approved', 'rejected', 'answered', 'stale')
  and delivered_at is null;

-- :name reopen
-- Takes the answers of persons out of some questions that no attempt has delivered, and the votes: they are asked anew,
-- as when they were opened, with the whole of their time. Once for each answer.
-- locks: approval, vote
with answered as (
    select tenant, run_id, interrupt_id, decided_by from control.approval
    where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = any (%(interrupts)s)
      and decision in ('approved', 'rejected', 'answered') and delivered_at is null and consumed_by is null
      and stale is null and decided_by <> 'clock'
), votes as (
    delete from control.vote v using answered d
    where v.tenant = d.tenant and v.run_id = d.run_id and v.interrupt_id = d.interrupt_id
)
update control.approval a
set decision = null, answer = null, note = null, decided_by = null, decided_at = null, opened_at = %(at)s,
    expires_at = %(at)s + (a.expires_at - a.opened_at), due_at = null, overdue = false,
    rung = 0, reviews = 0, assignee = null,
    assigned_why = null, returned = d.decided_by || ': ' || %(why)s
from answered d
where a.tenant = d.tenant and a.run_id = d.run_id and a.interrupt_id = d.interrupt_id
returning a.interrupt_id, a.node, a.title, a.packet, a.schema, d.decided_by;

-- :name due
-- When the clock brings something next for a question that was asked anew.
-- locks: approval
update control.approval set due_at = %(due_at)s
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s;

-- :name given
-- The decisions on a run's approvals, oldest first. One that went stale was given as a no, which is policy's.
-- locks: none
select interrupt_id, packet, schema, answer, coalesce(decided_by, 'policy') as by, note
from control.approval
where tenant = %(tenant)s and run_id = %(run_id)s and kind = 'approval' and decision in ('approved', 'rejected',
    'answered', 'stale')
order by decided_at, interrupt_id;

-- :name last_decided
-- The question of a run that was decided last.
-- locks: none
select interrupt_id, title, decision, decided_by, decided_at
from control.approval
where tenant = %(tenant)s and run_id = %(run_id)s and decision in ('approved', 'rejected', 'answered')
order by decided_at desc, interrupt_id limit 1;

-- :name settle
-- Answers that the graph has taken in: decided, and no longer pending on the head.
-- locks: approval
update control.approval set delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and decision in ('approved', 'rejected', 'answered', 'stale')
  and delivered_at is null and interrupt_id <> all (%(pending)s)
returning interrupt_id;

-- :name guards
-- What is known of a decision that is to guard an effect. The caller holds the run's lock.
-- locks: none
select interrupt_id, node, packet, schema, opened_at, decision, decided_by, stale, consumed_by
from control.approval where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s;

-- :name consume
-- An approval is spent on one effect. No row where another has it. The caller holds the run's lock.
-- locks: approval
update control.approval set consumed_by = %(key)s, consumed_at = coalesce(consumed_at, %(at)s)
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s and decision = 'approved'
  and stale is null and coalesce(consumed_by, %(key)s) = %(key)s
returning interrupt_id;

-- :name outdate
-- What a decision rests on has moved, for good. One that was never decided becomes stale instead.
-- locks: approval
update control.approval
set stale = %(moved)s::jsonb, answer = case when decision is null then %(answer)s else answer end,
    decided_at = coalesce(decided_at, %(at)s), decision = coalesce(decision, 'stale')
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s;

-- :name spoken
-- What was said to a run's questions, each entry with the request that policy answered, and what was returned to whom;
-- oldest first.
-- locks: none
select kind, actor, body from control.ledger
where tenant = %(tenant)s and run_id = %(run_id)s and kind in ('voted', 'decided', 'returned') and body is not null
order by seq;
