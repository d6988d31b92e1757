-- An answer that its step did not take is given back: the question is asked anew, without the votes for that answer.
alter table control.approval add column returned text;
grant delete on control.vote to control_flush;
